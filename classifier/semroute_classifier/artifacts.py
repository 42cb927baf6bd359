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

from semroute_classifier.encoders import vectors_of
from semroute_classifier.head import Head
from semroute_classifier.keeping import new_folder
from semroute_classifier.utterances import NONE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from semroute_classifier.encoders import Encoder, States, Vectors
    from semroute_classifier.utterances import UtteranceSet

    Progress = Callable[[int, int], None]

_FORMAT = 2
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Artifact:
    """Vectors of shape (utterances, dimension), in the utterances' order, and the heads.

    ``task_head`` numbers its labels as ``labels_of`` does, ``tier_head`` from LOW as 0. Either is
    None where there are too few utterances to learn from.
    """

    vectors: Vectors
    task_head: Head | None
    tier_head: Head | None


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
    folder = home / "artifacts" / _fingerprint(utterances, encoder) if home else None
    if folder:
        kept = _load(folder, len(utterances.utterances), encoder.dimension)
        if kept is not None:
            return kept
    artifact = _build(utterances, encoder, progress)
    if folder:
        _keep(folder, artifact, utterances, encoder)
    return artifact


def _fingerprint(utterances: UtteranceSet, encoder: Encoder) -> str:
    content = json.dumps([_FORMAT, encoder.fingerprint, encoder.width, utterances.revision])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _build(utterances: UtteranceSet, encoder: Encoder, progress: Progress | None) -> Artifact:
    texts = [u.text for u in utterances.utterances]
    states = _embed(texts, encoder, progress)
    labels = labels_of(utterances)
    number = {label: i for i, label in enumerate(labels)}
    tasks = np.array([number[u.task] for u in utterances.utterances])
    tiered = [i for i, u in enumerate(utterances.utterances) if u.tier]
    tiers = np.array([int(u.tier or 0) - 1 for u in utterances.utterances])[tiered]
    return Artifact(
        vectors=np.ascontiguousarray(vectors_of(states, encoder)),
        task_head=Head.fit(states, texts, tasks),
        tier_head=Head.fit(states[tiered], [texts[i] for i in tiered], tiers) if tiered else None,
    )


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


def _load(folder: Path, count: int, dimension: int) -> Artifact | None:
    """The artifact in ``folder``, or None where it is missing, damaged or of another shape."""
    try:
        vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        heads = json.loads((folder / "manifest.json").read_text())["heads"]
        loaded = {name: Head.load(folder / f"{name}.npz") for name in heads}
    except Exception:  # a damaged file raises whatever the part that it breaks raises
        return None
    if vectors.shape != (count, dimension) or not _are_unit(vectors):
        return None
    return Artifact(vectors, loaded.get("task_head"), loaded.get("tier_head"))


def _are_unit(vectors: Vectors) -> bool:
    """Whether every row has length 1; after a power failure a file may be whole but zeros."""
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3))


def _keep(folder: Path, artifact: Artifact, utterances: UtteranceSet, encoder: Encoder) -> None:
    heads = {"task_head": artifact.task_head, "tier_head": artifact.tier_head}
    manifest = {
        "format": _FORMAT,
        "encoder": encoder.name,
        "encoder_fingerprint": encoder.fingerprint,
        "utterances_revision": utterances.revision,
        "count": len(utterances.utterances),
        "heads": [name for name, head in heads.items() if head],
    }
    # A full disk, or a home that cannot be written, must not stop a start.
    with contextlib.suppress(OSError), new_folder(folder) as new:
        np.save(new / "vectors.npy", artifact.vectors)
        for name, head in heads.items():
            if head:
                head.save(new / f"{name}.npz")
        (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
