"""What is computed once and kept: the utterances' vectors and what was learned from them.

An artifact lies under the fingerprints of what it was made from, so one made from anything else
is never found, and a new one appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier import head as heads_of
from semroute_classifier.encoders import vectors_of
from semroute_classifier.features import Features
from semroute_classifier.head import Head
from semroute_classifier.index import Index
from semroute_classifier.keeping import new_folder
from semroute_classifier.reading import Reader
from semroute_classifier.tiers import OwnTiers, held_out
from semroute_classifier.utterances import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Encoder, States, Vectors
    from semroute_classifier.features import Inputs
    from semroute_classifier.head import Fitted
    from semroute_classifier.utterances import UtteranceSet

    Progress = Callable[[int, int], None]

_FORMAT = 7
_CHUNK = 32
_VECTORS = "vectors.npy"


@dataclass(frozen=True, slots=True)
class Heads:
    """The trained heads over shared features. ``tier`` and ``own`` are None where no task has
    tiers; ``own`` is what each task adds to them."""

    features: Features
    task: Head
    tier: Head | None
    own: OwnTiers | None

    @property
    def _reads_words(self) -> bool:
        return len(self.task.words) > 0 or (self.tier is not None and len(self.tier.words) > 0)

    def odds(
        self, states: States, texts: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The odds of each label, shape (texts, labels), and of each tier, shape (texts, 3)."""
        inputs = self.features.of(states, texts, words=self._reads_words)
        paired = len(self.task.pairs) or (self.tier is not None and len(self.tier.pairs))
        pairs = self.features.pairs(inputs.dense) if paired else None
        tasks = self.task.odds(self.features, inputs, pairs)
        if self.tier is None or self.own is None:
            return tasks, np.zeros((len(texts), 3))
        best = tasks[:, : len(self.own.weights)].argmax(axis=1)
        tiers = self.tier.odds(self.features, inputs, pairs)
        return tasks, self.own.beside(tiers, inputs.dense, best)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the task head says of utterances that it had not seen: their right ``labels``, shape
    (n,), the ``odds`` it gave, shape (n, labels), and the ``similarity`` of the nearest other
    utterance, shape (n,). ``tier_right``, shape (n,): the tier head, which had not seen them
    either, named their tier; ``tier_sure``: with this probability, 1 where they have none."""

    labels: NDArray[np.int64]
    odds: NDArray[np.float64]
    similarity: NDArray[np.float32]
    tier_right: NDArray[np.bool_]
    tier_sure: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Artifact:
    """Vectors of shape (utterances, dimension), in the utterances' order, their index, and what
    was learned: labels are numbered as ``labels_of`` does, tiers from LOW as 0. ``heads`` and
    ``held_out`` are None where there are too few utterances to learn from.
    """

    vectors: Vectors
    index: Index
    heads: Heads | None
    held_out: HeldOut | None


def labels_of(utterances: UtteranceSet) -> tuple[str, ...]:
    """The tasks in order, then ``none`` where the set has out-of-scope examples."""
    has_none = any(u.task == NONE for u in utterances.utterances)
    return (*utterances.tasks, NONE) if has_none else utterances.tasks


def load_or_build(
    utterances: UtteranceSet,
    encoder: Encoder,
    home: Path | None,
    progress: Progress | None = None,
) -> Artifact:
    """From ``home`` where it lies there, else built and kept; ``home`` None keeps nothing.

    ``progress`` is called with (done, total) while texts are embedded.
    """
    origin = _origin(utterances, encoder)
    folder = home / "artifacts" / _fingerprint(origin) if home else None
    if folder:
        kept = _load(folder, origin)
        if kept is not None:
            return kept
    artifact = _build(utterances, encoder, progress)
    if folder:
        _keep(folder, artifact, origin)
    return artifact


def _origin(utterances: UtteranceSet, encoder: Encoder) -> dict[str, str | int]:
    """What an artifact is made from."""
    return {
        "format": _FORMAT,
        "encoder": encoder.fingerprint,
        "width": encoder.width,
        "utterances": utterances.revision,
    }


def _fingerprint(origin: Mapping[str, str | int]) -> str:
    return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]


def _build(utterances: UtteranceSet, encoder: Encoder, progress: Progress | None) -> Artifact:
    reader = Reader(encoder)
    texts = [reader.read(u.text).text for u in utterances.utterances]
    states = _embed(texts, encoder, progress)
    vectors = np.ascontiguousarray(vectors_of(states, encoder))
    index = Index.build(vectors)
    number = {label: i for i, label in enumerate(labels_of(utterances))}
    tasks = np.array([number[u.task] for u in utterances.utterances])
    if not _can_learn(tasks):
        return Artifact(vectors, index, None, None)
    features, inputs = Features.fit(states, texts)
    task = heads_of.fit(features, inputs.without_surface(), tasks)
    assert task is not None
    tiers = np.array([int(u.tier or 0) - 1 for u in utterances.utterances])
    tier, own, right, sure = _learn_tiers(features, inputs, tasks, tiers, task)
    similarity = _nearest(task.rows, vectors, index)
    # In the precision in which they are kept, so that what is read back says the same.
    odds = task.odds.astype(np.float32).astype(np.float64)
    return Artifact(
        vectors=vectors,
        index=index,
        heads=Heads(features, task.head, tier, own),
        held_out=HeldOut(tasks[task.rows], odds, similarity, right, sure),
    )


def _learn_tiers(
    features: Features,
    inputs: Inputs,
    tasks: NDArray[np.int64],
    tiers: NDArray[np.int64],
    task: Fitted,
) -> tuple[Head | None, OwnTiers | None, NDArray[np.bool_], NDArray[np.float32]]:
    """The heads of ``tiers``, -1 where a text has none, and of the texts that ``task`` held out
    ``HeldOut.tier_right`` and ``tier_sure``."""
    right, sure = np.zeros(len(task.rows), bool), np.ones(len(task.rows), np.float32)
    tiered = np.flatnonzero(tiers >= 0)
    if not len(tiered):
        return None, None, right, sure
    inputs, tiers, tasks = inputs[tiered], tiers[tiered], tasks[tiered]
    shared = heads_of.within(task.splits, tiered, tiers)
    tier = heads_of.fit(features, inputs, tiers, shared)
    if tier is None:
        return None, None, right, sure
    count = int(tasks.max()) + 1
    if shared:
        mine = np.isin(task.rows, tiered)
        said = task.odds[mine, :count].argmax(axis=1)
        odds = held_out(tier, inputs.dense, tasks, tiers, said)
        right[mine] = odds.argmax(axis=1) == tiers[tier.rows]
        sure[mine] = odds.max(axis=1)
    return tier.head, OwnTiers.fit(inputs.dense, tasks, tiers, count), right, sure


def _can_learn(labels: NDArray[np.int64]) -> bool:
    present = np.bincount(labels)
    return len(present) > 1 and bool(present.min() >= heads_of.FEWEST)


def _nearest(rows: NDArray[np.int64], vectors: Vectors, index: Index) -> NDArray[np.float32]:
    """The similarity of the nearest other utterance of each of ``rows``."""
    similarities, found = index.search(vectors[rows], 2)
    return np.where(found[:, 0] == rows, similarities[:, 1], similarities[:, 0])


def _embed(texts: list[str], encoder: Encoder, progress: Progress | None) -> States:
    states = np.empty((len(texts), encoder.width), dtype=np.float32)
    # Texts of like length share a pass, so that little is spent on padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        states[rows] = encoder.encode([texts[i] for i in rows])
        if progress:
            progress(start + len(rows), len(texts))
    return states


def _load(folder: Path, origin: Mapping[str, str | int]) -> Artifact | None:
    """The artifact in ``folder``, or None where it is missing, damaged or of another origin."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        digests = manifest["files"]
        whole = all(_digest(folder / name) == digest for name, digest in digests.items())
        if manifest["origin"] != origin or not whole:
            return None
        vectors: Vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
        index = Index.load(folder, vectors)
        parts = [name for name in digests if name != _VECTORS]
        kept = {name.removesuffix(".npz"): _arrays(folder / name) for name in parts}
        learned = _learned(kept) if kept else (None, None)
    except Exception:  # a damaged file raises whatever the part that it breaks raises
        return None
    return Artifact(vectors, index, *learned) if index else None


def _learned(kept: Mapping[str, dict[str, NDArray[np.float32]]]) -> tuple[Heads, HeldOut]:
    tier, own = None, None
    if "tier" in kept:
        tier, own = Head.from_arrays(kept["tier"]), OwnTiers.from_arrays(kept["tier"])
    features, task = Features.from_arrays(kept["features"]), Head.from_arrays(kept["task"])
    heads = Heads(features, task, tier, own)
    held = kept["held_out"]
    labels = held["labels"].astype(np.int64)
    odds = held["odds"].astype(np.float64)
    right = held["tier_right"] > 0
    return heads, HeldOut(labels, odds, held["similarity"], right, held["tier_sure"])


def _arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    # Opened here, because numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        return dict(kept)


def _digest(path: Path) -> str:
    """Of what ``path`` holds; after a power failure a file may be whole but zeros."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(artifact: Artifact) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The arrays of each file. Arrays only, so that reading them back runs nothing."""
    heads, held = artifact.heads, artifact.held_out
    if heads is None or held is None:
        return {}
    tiers = heads.tier.arrays() | heads.own.arrays() if heads.tier and heads.own else None
    tier = {"tier": tiers} if tiers else {}
    return {
        "features": heads.features.arrays(),
        "task": heads.task.arrays(),
        **tier,
        "held_out": {
            "labels": held.labels.astype(np.float32),
            "odds": held.odds.astype(np.float32),
            "similarity": held.similarity,
            "tier_right": held.tier_right.astype(np.float32),
            "tier_sure": held.tier_sure,
        },
    }


def _keep(folder: Path, artifact: Artifact, origin: Mapping[str, str | int]) -> None:
    # A full disk, or a home that cannot be written, must not stop a start.
    with contextlib.suppress(OSError), new_folder(folder) as new:
        np.save(new / _VECTORS, artifact.vectors)
        for name, arrays in _parts(artifact).items():
            np.savez(new / f"{name}.npz", allow_pickle=False, **arrays)
        digests = {path.name: _digest(path) for path in sorted(new.iterdir())}
        artifact.index.save(new)  # it has a digest of its own
        manifest = {"origin": origin, "files": digests}
        (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
