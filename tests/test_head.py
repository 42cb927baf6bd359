"""The head: it learns, its odds are odds, and what is kept is only numbers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from semroute_classifier.head import FEWEST, Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 16
WORDS = ("apple pear plum", "hammer nail saw", "violin drum flute")


def examples(
    each: int = 20, labels: int = 3, seed: int = 0
) -> tuple[NDArray[np.float32], list[str], NDArray[np.int64]]:
    """States that lie around one axis for each label, and texts from one vocabulary for each."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(labels), each)
    states = np.eye(WIDTH)[numbers] + random.normal(scale=0.1, size=(len(numbers), WIDTH))
    texts = [" ".join(random.permutation(WORDS[n].split())) for n in numbers]
    return states.astype(np.float32), texts, numbers


def fitted(**how: Any) -> Head:
    head = Head.fit(*examples(**how))
    assert head is not None
    return head


@pytest.mark.parametrize("labels", [2, 3])
def test_separable_examples_are_learned(labels: int) -> None:
    """New examples like the old ones get their own label, and mostly with certainty."""
    head = fitted(labels=labels)
    states, texts, numbers = examples(labels=labels, seed=1)
    odds = head.odds(states, texts)
    assert odds.shape == (len(texts), labels)
    assert (odds.argmax(axis=1) == numbers).all()
    assert np.median(odds.max(axis=1)) > 0.9


def test_the_words_decide_where_the_states_say_nothing() -> None:
    """With states that are all noise, what is written still tells the labels apart."""
    _, texts, numbers = examples()
    noise = np.random.default_rng(2).normal(size=(len(texts), WIDTH)).astype(np.float32)
    head = Head.fit(noise, texts, numbers)
    assert head is not None
    assert (head.odds(noise[::-1].copy(), texts).argmax(axis=1) == numbers).mean() > 0.9


def test_the_states_decide_where_the_words_say_nothing() -> None:
    """With the same words everywhere, the states still tell the labels apart."""
    states, texts, numbers = examples()
    head = Head.fit(states, ["the same words"] * len(texts), numbers)
    assert head is not None
    fresh, _, numbers = examples(seed=1)
    odds = head.odds(fresh, ["the same words"] * len(numbers))
    assert (odds.argmax(axis=1) == numbers).all()


def test_odds_are_unsure_where_nothing_can_be_learned() -> None:
    """Labels drawn by lot give odds near their shares, not false certainty."""
    states, _, _ = examples(each=40)
    lots = np.random.default_rng(3).permutation(np.repeat(np.arange(3), 40))
    noise = np.random.default_rng(4).normal(size=states.shape).astype(np.float32)
    head = Head.fit(noise, ["the same words"] * len(lots), lots)
    assert head is not None
    fresh = np.random.default_rng(5).normal(size=states.shape).astype(np.float32)
    assert np.median(head.odds(fresh, ["the same words"] * len(lots)).max(axis=1)) < 0.6


@pytest.mark.parametrize("text", ["", "apple", "never seen before", "x" * 30_000, "\x00", "🧬"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_odds_sum_to_one(text: str, scale: float) -> None:
    """The odds of any text with any states are probabilities."""
    states = np.full((1, WIDTH), scale, dtype=np.float32)
    odds = fitted().odds(states, [text])
    assert np.isfinite(odds).all()
    assert (odds >= 0).all()
    assert odds.sum() == pytest.approx(1)


@pytest.mark.parametrize("wide", [False, True])
def test_both_forms_of_the_solution_agree(wide: bool) -> None:
    """Zeros beside the states change nothing, though more columns than examples are solved else."""
    states, texts, numbers = examples()
    padding = np.zeros((len(texts), 200 if wide else 3), dtype=np.float32)
    padded = np.hstack([states, padding])
    head = Head.fit(padded, texts, numbers)
    assert head is not None
    assert np.allclose(head.odds(padded, texts), fitted().odds(states, texts), atol=1e-3)


@pytest.mark.parametrize(
    "numbers",
    [
        [0] * 20,
        [0] * 20 + [1] * (FEWEST - 1),
        [0] * 20 + [2] * 20,
        [1] * 20,
        [0],
    ],
    ids=["one label", "a rare label", "a label left out", "the first left out", "one example"],
)
def test_too_few_examples_give_no_head(numbers: list[int]) -> None:
    """Where there is nothing to tell apart or too little to hold out, there is no head."""
    states = np.ones((len(numbers), WIDTH), dtype=np.float32)
    assert Head.fit(states, ["words"] * len(numbers), np.array(numbers)) is None


def test_just_enough_examples_give_a_head() -> None:
    """The fewest examples of every label that are said to suffice do suffice."""
    assert Head.fit(*examples(each=FEWEST)) is not None


def test_learning_is_deterministic() -> None:
    """The same examples give the same odds to the last digit."""
    states, texts, _ = examples(seed=1)
    assert np.array_equal(fitted().odds(states, texts), fitted().odds(states, texts))


def test_a_kept_head_gives_the_same_odds(tmp_path: Path) -> None:
    """Saved and loaded, a head says exactly what it said before."""
    head = fitted()
    head.save(tmp_path / "head.npz")
    states, texts, _ = examples(seed=1)
    kept = Head.load(tmp_path / "head.npz")
    assert np.array_equal(kept.odds(states, texts), head.odds(states, texts))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    """A file whose arrays hold pickled objects is refused, and nothing in it is run."""
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "head.npz", center=trap, states=trap, rarity=trap, words=trap, weights=trap)
    with pytest.raises(ValueError, match="allow_pickle"):
        Head.load(tmp_path / "head.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    """A plain pickle under a head's name is refused, and nothing in it is run."""
    (tmp_path / "head.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match="pickled"):
        Head.load(tmp_path / "head.npz")
    assert not (tmp_path / "sprung").exists()


def test_the_trap_is_one(tmp_path: Path) -> None:
    """The trap of the tests above would have sprung: unpickling it does create the file."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_a_file_without_its_arrays_is_refused(tmp_path: Path) -> None:
    """A file that lacks an array, or is none, raises what ``load`` says it raises."""
    np.savez(tmp_path / "head.npz", center=np.zeros(3))
    with pytest.raises(KeyError):
        Head.load(tmp_path / "head.npz")
    with pytest.raises(OSError, match="no-head"):
        Head.load(tmp_path / "no-head.npz")
