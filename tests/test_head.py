"""The head: it learns, its odds are odds, and what it is weighed by it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from semroute_classifier import head as heads
from semroute_classifier.features import SURFACE, Features, Inputs
from semroute_classifier.head import FEWEST, PAIRS_SHARE, PENALTIES, Fitted, Head, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Examples = tuple[NDArray[np.float32], list[str], NDArray[np.int64]]

WIDTH = 16
WORDS = ("apple pear plum", "hammer nail saw", "violin drum flute")
SAME = "the same words"


def examples(each: int = 20, labels: int = 3, seed: int = 0) -> Examples:
    """States that lie around one axis for each label, and texts from one vocabulary for each."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(labels), each)
    states = np.eye(WIDTH)[numbers] + random.normal(scale=0.1, size=(len(numbers), WIDTH))
    texts = [" ".join(random.permutation(WORDS[n].split())) for n in numbers]
    return states.astype(np.float32), texts, numbers


def noise(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def learned(
    states: NDArray[np.float32], texts: Sequence[str], labels: NDArray[np.int64]
) -> tuple[Features, Inputs, Fitted]:
    features, inputs = Features.fit(states, texts)
    fitted = fit(features, inputs, labels)
    assert fitted is not None
    return features, inputs, fitted


class Model:
    """Features and a head over them."""

    def __init__(self, *given: Any) -> None:
        self.features, self.inputs, self.fitted = learned(*given)
        self.head = self.fitted.head

    def odds(self, states: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float64]:
        return self.head.odds(self.features, self.features.of(states, texts))


# ---- what is learned


@pytest.mark.parametrize("labels", [2, 3])
def test_separable_examples_are_learned(labels: int) -> None:
    """New examples like the old ones get their own label, and mostly with certainty."""
    states, texts, numbers = examples(labels=labels, seed=1)
    odds = Model(*examples(labels=labels)).odds(states, texts)
    assert odds.shape == (len(texts), labels)
    assert (odds.argmax(axis=1) == numbers).all()
    assert np.median(odds.max(axis=1)) > 0.9


def test_the_words_decide_where_the_states_say_nothing() -> None:
    """With states that are all noise, what is written still tells the labels apart."""
    _, texts, numbers = examples()
    model = Model(noise(len(texts), 2), texts, numbers)
    assert (model.odds(noise(len(texts), 3), texts).argmax(axis=1) == numbers).mean() > 0.9


def test_the_states_decide_where_the_words_say_nothing() -> None:
    """With the same words everywhere, the states still tell the labels apart."""
    states, texts, numbers = examples()
    model = Model(states, [SAME] * len(texts), numbers)
    fresh, _, numbers = examples(seed=1)
    assert (model.odds(fresh, [SAME] * len(numbers)).argmax(axis=1) == numbers).all()


def crossed(seed: int) -> Examples:
    """The label is whether two values have the same sign: neither alone says anything of it."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], size=(200, 2))
    states = np.zeros((200, WIDTH), np.float32)
    states[:, :2] = signs + random.normal(scale=0.2, size=(200, 2))
    return states, [SAME] * 200, (signs.prod(axis=1) > 0).astype(np.int64)


def test_what_only_products_tell_is_learned() -> None:
    """Two labels that lie crosswise are told apart by the pairs, and not without them."""
    model = Model(*crossed(0))
    states, texts, labels = crossed(1)
    assert (model.odds(states, texts).argmax(axis=1) == labels).mean() > 0.95
    head = model.head
    straight = Head(head.dense, np.empty((0, 2), np.float32), head.words, head.bias)
    odds = straight.odds(model.features, model.features.of(states, texts))
    assert (odds.argmax(axis=1) == labels).mean() < 0.8


def test_odds_are_unsure_where_nothing_can_be_learned() -> None:
    """Labels drawn by lot give odds near their shares, not false certainty."""
    lots = np.random.default_rng(3).permutation(np.repeat(np.arange(3), 40))
    model = Model(noise(len(lots), 4), [SAME] * len(lots), lots)
    odds = model.odds(noise(len(lots), 5), [SAME] * len(lots))
    assert np.median(odds.max(axis=1)) < 0.6


@pytest.mark.parametrize("text", ["", "apple", "never seen before", "x" * 30_000, "\x00", "🧬"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_odds_sum_to_one(text: str, scale: float) -> None:
    """The odds of any text with any states are probabilities."""
    states = np.full((1, WIDTH), scale, dtype=np.float32)
    odds = Model(*examples()).odds(states, [text])
    assert np.isfinite(odds).all()
    assert (odds >= 0).all()
    assert odds.sum() == pytest.approx(1)


def test_pairs_that_are_known_are_not_reckoned_again() -> None:
    """Given the pairs, a head says what it says when it computes them itself."""
    model = Model(*examples())
    inputs = model.inputs
    pairs = model.features.pairs(inputs.dense)
    assert np.array_equal(
        model.head.odds(model.features, inputs, pairs), model.head.odds(model.features, inputs)
    )
    other = model.head.odds(model.features, inputs, np.zeros_like(pairs))
    assert not np.allclose(other, model.head.odds(model.features, inputs))


# ---- which model


def test_the_weights_say_what_the_kernel_says() -> None:
    """Weights of states and pairs give the scores of ridge regression under their kernel.

    The kernel is the product of two texts' states and ``PAIRS_SHARE`` of its square along the
    directions. The scores are a multiple of it, for the parts are weighed afterwards.
    """
    _, texts, numbers = examples(seed=4)
    model = Model(noise(len(texts), 6), texts, numbers)
    dense, features = model.inputs.dense.astype(np.float64), model.features
    along = dense @ features.directions
    gram = dense @ dense.T + PAIRS_SHARE * (along @ along.T) ** 2
    targets = np.eye(3)[numbers] - 1 / 3
    scores = dense @ model.head.dense + features.pairs(model.inputs.dense) @ model.head.pairs

    def miss(penalty: float) -> float:
        dual = gram @ np.linalg.solve(gram + penalty * np.eye(len(gram)), targets)
        scale = (dual * scores).sum() / (dual * dual).sum()
        assert scale > 0
        return float(np.abs(scores - scale * dual).max() / np.abs(scores).max())

    assert min(map(miss, PENALTIES)) < 1e-3


def many_labels(seed: int) -> Examples:
    """One label more than are regressed with products, each around a point of its own."""
    labels = heads.FEW_LABELS + 1
    points = np.random.default_rng(9).normal(size=(labels, WIDTH))
    numbers = np.repeat(np.arange(labels), 8)
    spread = np.random.default_rng(seed).normal(scale=0.3, size=(len(numbers), WIDTH))
    states = (points[numbers] + spread).astype(np.float32)
    return states, [f"word{n}" for n in numbers], numbers


def test_many_labels_are_learned_without_pairs() -> None:
    """More labels are told apart by logistic regression: no pairs, and nothing of the surface."""
    model = Model(*many_labels(0))
    assert len(model.head.pairs) == 0
    assert not model.head.dense[-SURFACE:].any()
    states, texts, numbers = many_labels(1)
    assert (model.odds(states, texts).argmax(axis=1) == numbers).mean() > 0.95


@pytest.mark.parametrize("labels", [2, 3])
def test_many_texts_are_learned_without_pairs(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the number that can be solved exactly two labels and three are learned as well."""
    monkeypatch.setattr(heads, "FEW_TEXTS", 20 * labels)
    assert len(Model(*examples(labels=labels)).head.pairs) > 0
    monkeypatch.setattr(heads, "FEW_TEXTS", 20 * labels - 1)
    model = Model(*examples(labels=labels))
    assert len(model.head.pairs) == 0
    states, texts, numbers = examples(labels=labels, seed=1)
    assert (model.odds(states, texts).argmax(axis=1) == numbers).all()


def test_words_are_left_out_where_they_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of texts times labels there are words; beyond it the states serve alone."""
    monkeypatch.setattr(heads, "WORDS_WORK", 180)
    assert len(Model(*examples()).head.words) > 0
    monkeypatch.setattr(heads, "WORDS_WORK", 179)
    model = Model(*examples())
    assert len(model.head.words) == 0
    states, texts, numbers = examples(seed=1)
    assert (model.odds(states, texts).argmax(axis=1) == numbers).all()


# ---- what was held out


def test_what_is_held_out_was_not_seen() -> None:
    """Labels drawn by lot are right by chance on held-out rows, and by heart on the head's own."""
    random = np.random.default_rng(0)
    texts = [f"word{i} thing{i}" for i in range(300)]
    lots = random.permutation(np.repeat(np.arange(3), 100))
    model = Model(noise(300, 1), texts, lots)
    odds = model.fitted.odds
    assert (odds.argmax(axis=1) == lots[model.fitted.rows]).mean() == pytest.approx(1 / 3, abs=0.1)
    assert (model.head.odds(model.features, model.inputs).argmax(axis=1) == lots).mean() > 0.9


def test_each_text_is_held_out_once() -> None:
    """Every row comes once, with odds of its own that are those of its label where it is plain."""
    fitted = Model(*examples()).fitted
    assert sorted(fitted.rows) == list(range(60))
    assert np.allclose(fitted.odds.sum(axis=1), 1)
    assert (fitted.odds.argmax(axis=1) == fitted.rows // 20).all()


def test_of_many_texts_a_fifth_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the number that is folded a fifth is held out once, of every label alike."""
    monkeypatch.setattr(heads, "FOLDED_TEXTS", 59)
    rows = Model(*examples()).fitted.rows
    assert len(set(rows)) == len(rows) == 12
    assert np.bincount(rows // 20).tolist() == [4, 4, 4]


def test_held_out_odds_are_calibrated() -> None:
    """Where labels overlap, the held-out odds of the best are as high as it is often right."""
    states, _, numbers = examples(each=200)
    model = Model(states + 0.4 * noise(600, 8), [SAME] * 600, numbers)
    odds = model.fitted.odds
    right = (odds.argmax(axis=1) == numbers[model.fitted.rows]).mean()
    assert 0.5 < right < 0.95
    assert odds.max(axis=1).mean() == pytest.approx(right, abs=0.05)


# ---- how many are enough


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
    features, inputs = Features.fit(states, ["words"] * len(numbers))
    assert fit(features, inputs, np.array(numbers)) is None


def test_just_enough_examples_give_a_head() -> None:
    """The fewest examples of every label that are said to suffice do suffice."""
    assert Model(*examples(each=FEWEST)).head.bias.shape == (3,)


# ---- the same again


def test_learning_is_deterministic() -> None:
    """The same examples give the same odds to the last digit."""
    one, other = Model(*examples()), Model(*examples())
    states, texts, _ = examples(seed=1)
    assert np.array_equal(one.odds(states, texts), other.odds(states, texts))
    assert np.array_equal(one.fitted.odds, other.fitted.odds)


def test_a_kept_head_gives_the_same_odds() -> None:
    """From the arrays that are kept comes a head that says the same; a missing one is told."""
    model = Model(*examples())
    arrays = model.head.arrays()
    again = Head.from_arrays(arrays).odds(model.features, model.inputs)
    assert np.array_equal(again, model.head.odds(model.features, model.inputs))
    for name in arrays:
        with pytest.raises(KeyError, match=name):
            Head.from_arrays({k: v for k, v in arrays.items() if k != name})
