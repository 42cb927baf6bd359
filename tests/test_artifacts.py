"""What is computed once and kept: found again, rebuilt when it must be, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from semroute_classifier.artifacts import Artifact, labels_of, load_or_build
from semroute_classifier.encoders import HashingEncoder
from semroute_classifier.features import SURFACE
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import States

PER_TASK = 12
TASKS = {"code": "python script", "biology": "gene variant", NONE: "weather joke"}
UTTERANCES = UtteranceSet(
    tuple(
        Utterance(f"{words} number {i}", task, None if task == NONE else Tier(i % 2 + 1))
        for task, words in TASKS.items()
        for i in range(PER_TASK)
    )
)
TEXTS = [u.text for u in UTTERANCES.utterances]


class CountingEncoder(HashingEncoder):
    """Counts the texts that it embeds."""

    def __init__(self, dimension: int = 64, fingerprint: str = "") -> None:
        super().__init__(dimension)
        self.fingerprint = fingerprint or self.fingerprint
        self.embedded = 0

    def encode(self, texts: Sequence[str]) -> States:
        self.embedded += len(texts)
        return super().encode(texts)


def build(
    home: Path | None, utterances: UtteranceSet = UTTERANCES, encoder: CountingEncoder | None = None
) -> tuple[Artifact, int]:
    """The artifact, and how many texts were embedded for it."""
    encoder = encoder or CountingEncoder()
    artifact = load_or_build(utterances, encoder, home)
    return artifact, encoder.embedded


def folders(home: Path) -> list[Path]:
    return sorted((home / "artifacts").iterdir())


def assert_equal(one: Artifact, other: Artifact) -> None:
    """The same vectors and neighbours, and heads that say the same and said the same of what was
    held out, to the last digit."""
    assert np.array_equal(one.vectors, other.vectors)
    assert np.array_equal(one.index.search(one.vectors, 3), other.index.search(one.vectors, 3))
    for mine, theirs in zip(odds_of(one), odds_of(other), strict=True):
        assert np.array_equal(mine, theirs)
    assert one.held_out is not None
    assert other.held_out is not None
    assert np.array_equal(one.held_out.labels, other.held_out.labels)
    assert np.array_equal(one.held_out.similarity, other.held_out.similarity)
    assert np.array_equal(one.held_out.odds, other.held_out.odds)


def odds_of(artifact: Artifact) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What its heads say of ``TEXTS``: of their labels and of their tiers."""
    assert artifact.heads is not None
    return artifact.heads.odds(HashingEncoder(64).encode(TEXTS), TEXTS)


# ---- what is built


def test_an_artifact_holds_the_vectors_in_order() -> None:
    """Row by row the vectors are those of the utterances, though they were embedded otherwise."""
    artifact, embedded = build(None)
    assert embedded == len(TEXTS)
    assert np.array_equal(artifact.vectors, HashingEncoder(64).encode(TEXTS))


def test_the_heads_number_labels_as_the_set_does() -> None:
    """The task head counts tasks in the set's order and none last, the tier head from LOW."""
    artifact, _ = build(None)
    assert labels_of(UTTERANCES) == ("code", "biology", NONE)
    tasks, tiers = odds_of(artifact)
    said = [labels_of(UTTERANCES)[i] for i in tasks.argmax(axis=1)]
    assert said == [u.task for u in UTTERANCES.utterances]
    assert tiers.shape == (len(TEXTS), 2)
    assert np.allclose(tiers.sum(axis=1), 1)


def test_the_task_does_not_depend_on_the_surface() -> None:
    """Marks, lines and length have no weight among tasks; among tiers they have."""
    heads = build(None)[0].heads
    assert heads is not None
    assert heads.tier is not None
    assert not heads.task.dense[-SURFACE:].any()
    assert heads.tier.dense[-SURFACE:].any()


def test_without_tiers_none_is_likely() -> None:
    """A set whose tasks have no tiers has a task head alone; the odds of every tier are zero."""
    bare = UtteranceSet(tuple(Utterance(u.text, u.task) for u in UTTERANCES.utterances))
    artifact, _ = build(None, bare)
    assert artifact.heads is not None
    assert artifact.heads.tier is None
    assert artifact.heads.own is None
    assert not odds_of(artifact)[1].any()


def test_what_was_held_out_has_its_labels_and_nearest() -> None:
    """Every utterance was held out once; its nearest other is another, never it itself."""
    artifact, _ = build(None)
    held = artifact.held_out
    assert held is not None
    assert np.bincount(held.labels).tolist() == [PER_TASK] * 3
    assert (held.odds.argmax(axis=1) == held.labels).mean() > 0.9
    others = artifact.vectors @ artifact.vectors.T
    np.fill_diagonal(others, -1)
    assert sorted(held.similarity) == pytest.approx(sorted(others.max(axis=1)), abs=1e-5)


def test_none_comes_last_only_where_it_is() -> None:
    """A set without out-of-scope examples has its tasks as labels and nothing else."""
    only = UtteranceSet((Utterance("a", "x"), Utterance("b", "y")))
    assert labels_of(only) == ("x", "y")
    first = UtteranceSet((Utterance("a", NONE), Utterance("b", "y")))
    assert labels_of(first) == ("y", NONE)


def test_a_small_set_has_no_heads() -> None:
    """Three utterances are embedded and nothing is learned from them."""
    artifact, _ = build(None, UtteranceSet(UTTERANCES.utterances[:3]))
    assert artifact.vectors.shape == (3, 64)
    assert (artifact.heads, artifact.held_out) == (None, None)


def test_progress_is_told() -> None:
    """Whoever asks hears of every pass, up to the last text."""
    heard: list[tuple[int, int]] = []
    load_or_build(
        UTTERANCES, CountingEncoder(), None, lambda done, total: heard.append((done, total))
    )
    assert heard == sorted(heard)
    assert len(heard) > 1
    assert heard[-1] == (len(TEXTS), len(TEXTS))


# ---- found again


@pytest.mark.parametrize("count", [1, 3, len(TEXTS)])
def test_a_second_build_reads_what_the_first_kept(tmp_path: Path, count: int) -> None:
    """The same set and encoder embed nothing the second time and give the same."""
    utterances = UtteranceSet(UTTERANCES.utterances[:count])
    first, embedded = build(tmp_path, utterances)
    assert embedded == count
    second, embedded = build(tmp_path, utterances)
    assert embedded == 0
    assert np.array_equal(first.vectors, second.vectors)
    assert (first.heads is None) == (second.heads is None)
    if count == len(TEXTS):
        assert_equal(first, second)
    assert len(folders(tmp_path)) == 1


def test_home_is_made_where_it_is_missing(tmp_path: Path) -> None:
    """A home that does not exist yet is created, with whatever lies above it."""
    home = tmp_path / "not" / "yet"
    build(home)
    assert build(home)[1] == 0


def test_without_home_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home means no file, and every build embeds anew."""
    monkeypatch.chdir(tmp_path)
    assert build(None)[1] == len(TEXTS)
    assert build(None)[1] == len(TEXTS)
    assert list(tmp_path.iterdir()) == []


# ---- never stale


def changed(what: str) -> UtteranceSet:
    first, second, *rest = UTTERANCES.utterances
    other = {
        "text": (Utterance(first.text + " indeed", first.task, first.tier), second, *rest),
        "task": (Utterance(first.text, "biology", first.tier), second, *rest),
        "tier": (Utterance(first.text, first.task, Tier.HIGH), second, *rest),
        "order": (second, first, *rest),
        "one less": (second, *rest),
    }
    return UtteranceSet(other[what])


@pytest.mark.parametrize("what", ["text", "task", "tier", "order", "one less"])
def test_a_changed_utterance_is_built_anew(tmp_path: Path, what: str) -> None:
    """Whatever changes in the set, the old artifact is not used, and the new one is kept."""
    build(tmp_path)
    utterances = changed(what)
    count = len(utterances.utterances)
    assert build(tmp_path, utterances)[1] == count
    assert build(tmp_path, utterances)[1] == 0
    assert build(tmp_path)[1] == 0  # the old one is still there for the old set


@pytest.mark.parametrize(("dimension", "fingerprint"), [(64, "another"), (32, "hashing-1-64")])
def test_another_encoder_builds_anew(tmp_path: Path, dimension: int, fingerprint: str) -> None:
    """Another fingerprint or another width is another artifact."""
    build(tmp_path)
    _, embedded = build(tmp_path, encoder=CountingEncoder(dimension, fingerprint))
    assert embedded == len(TEXTS)
    assert build(tmp_path)[1] == 0


# ---- many at once, and nowhere to write


def test_concurrent_builders_end_with_a_good_artifact(tmp_path: Path) -> None:
    """Builders that race get the same, and leave one whole artifact and no rubbish."""
    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda _: build(tmp_path)[0], range(24)))
    for artifact in built:
        assert_equal(artifact, built[0])
    assert build(tmp_path)[1] == 0
    assert len(folders(tmp_path)) == 1


def test_builders_in_other_processes_may_race(tmp_path: Path) -> None:
    """Two servers that start at once on the same home both start, and keep a good artifact."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); "
        "from test_artifacts import build; build(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), os.path.dirname(__file__)]
    racing = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=120) for process in racing] == [0, 0, 0]
    assert build(tmp_path)[1] == 0
    assert len(folders(tmp_path)) == 1


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_home_that_cannot_be_written_does_not_stop_a_start(tmp_path: Path, below: str) -> None:
    """Where home is a file, or lies below one, the artifact is built and not kept."""
    (tmp_path / "file").write_text("mine")
    artifact, embedded = build(tmp_path / "file" / below)
    assert embedded == len(TEXTS)
    assert_equal(artifact, build(None)[0])
    assert (tmp_path / "file").read_text() == "mine"
