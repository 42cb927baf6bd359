"""Features: what a text's labels are predicted from, alike when fitted and when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from semroute_classifier import lexical
from semroute_classifier.features import (
    SURFACE,
    SURFACE_SHARE,
    Features,
    Inputs,
    main_directions,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WIDTH = 12
TEXTS = [
    "Fix it",
    "Is it fixed?",
    "Write a rule. Then test it, twice; report 2 errors.",
    "for x in y:\n    print(x)",
    "写一个函数。",
    "Plot the counts of 96 samples",
    "",
    "Explain why",
]
STATES = np.random.default_rng(0).normal(size=(len(TEXTS), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> tuple[Features, Inputs]:
    return Features.fit(STATES, TEXTS)


def surface_of(features: Features, text: str) -> np.ndarray:
    """The surface of ``text`` before it was centred and scaled."""
    inputs = features.of(STATES[:1], [text])
    found = inputs.dense[0, -SURFACE:] / features.surface_scale + features.surface_center
    return np.asarray(found)


def are_equal(one: csr_matrix, other: csr_matrix) -> bool:
    return np.array_equal(table(one), table(other))


def table(words: csr_matrix) -> np.ndarray:
    return np.asarray(words.toarray())


def test_asked_again_a_text_has_the_inputs_it_was_fitted_with(
    fitted: tuple[Features, Inputs],
) -> None:
    """What a head is trained on and what it is asked with are computed alike."""
    features, inputs = fitted
    again = features.of(STATES, TEXTS)
    assert inputs.dense.shape == (len(TEXTS), WIDTH + SURFACE)
    assert table(inputs.words).shape == (len(TEXTS), lexical.WIDTH)
    assert np.array_equal(again.dense, inputs.dense)
    assert are_equal(again.words, inputs.words)


def test_a_text_has_the_same_inputs_in_any_company(fitted: tuple[Features, Inputs]) -> None:
    """Alone, a text's inputs are those that it has among others."""
    features, inputs = fitted
    for i, text in enumerate(TEXTS):
        alone = features.of(STATES[[i]], [text])
        assert np.array_equal(alone.dense[0], inputs.dense[i])
        assert are_equal(alone.words, inputs[np.array([i])].words)


def test_states_are_centred_and_of_unit_length(fitted: tuple[Features, Inputs]) -> None:
    """What all texts share is taken away, and what is left has length 1."""
    inputs = fitted[1]
    moved = STATES - STATES.mean(axis=0)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    assert np.allclose(inputs.dense[:, :WIDTH], moved, atol=1e-6)
    shifted, _ = Features.fit(STATES + 5, TEXTS)
    assert np.allclose(shifted.of(STATES + 5, TEXTS).dense, inputs.dense, atol=1e-5)


def test_the_given_states_stay_as_they_are() -> None:
    """Neither fitting nor asking changes the array that the caller holds."""
    before = STATES.copy()
    Features.fit(STATES, TEXTS)[0].of(STATES, TEXTS)
    assert np.array_equal(STATES, before)


def test_the_surface_lies_beside_the_states(fitted: tuple[Features, Inputs]) -> None:
    """Over the fitted texts each surface feature has mean 0 and the spread that was chosen."""
    surface = fitted[1].dense[:, -SURFACE:]
    assert np.allclose(surface.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(surface.std(axis=0), SURFACE_SHARE, atol=1e-6)


def test_a_surface_reckoned_by_hand(fitted: tuple[Features, Inputs]) -> None:
    """Six words, 20 characters, a question, one line, a digit, two pauses, two ends, four signs."""
    text = "a, b; c1? Now do it."
    reckoned = [
        np.log1p(6), np.log1p(20), 20 / 6, 1, 0, 1 / 20, np.log1p(2), np.log1p(2), 4 / 20,
    ]  # fmt: skip
    assert surface_of(fitted[0], text) == pytest.approx(reckoned, abs=1e-4)
    assert surface_of(fitted[0], "a\nb")[4] == pytest.approx(1, abs=1e-4)


def test_the_directions_do_not_see_the_surface(fitted: tuple[Features, Inputs]) -> None:
    """Pairs are of states alone, and inputs without surface differ in nothing else."""
    features, inputs = fitted
    blind = inputs.without_surface()
    assert inputs.dense[:, -SURFACE:].any()
    assert not blind.dense[:, -SURFACE:].any()
    assert np.array_equal(blind.dense[:, :WIDTH], inputs.dense[:, :WIDTH])
    assert features.pairs(blind.dense) == pytest.approx(features.pairs(inputs.dense), abs=1e-5)


def test_what_does_not_vary_divides_by_nothing() -> None:
    """Equal texts with equal states, even of zeros, give finite inputs."""
    for states in (np.zeros((3, WIDTH), np.float32), np.ones((3, WIDTH), np.float32)):
        features, inputs = Features.fit(states, ["same"] * 3)
        assert np.isfinite(inputs.dense).all()
        assert np.isfinite(features.pairs(inputs.dense)).all()


@pytest.mark.parametrize("count", [3, 7, 30, 1000])
def test_rounding_is_no_spread(count: int) -> None:
    """Where all texts have three words, a text of two is not a world away from them."""
    texts = [f"{word} two three" for word in ("a", "bcd") for _ in range(count)]
    states = np.random.default_rng(0).normal(size=(len(texts), WIDTH)).astype(np.float32)
    features, _ = Features.fit(states, texts)
    assert np.abs(features.of(states[:1], ["bcd two"]).dense[0, -SURFACE:]).max() < 1


def test_pairs_are_every_product_once() -> None:
    """Along two directions of 2 and 3 the pairs are 2·2, 2·3 and 3·3."""
    zeros = np.zeros(0, np.float32)
    along = np.eye(3, dtype=np.float32)[:, 1:]
    features = Features(zeros, along, zeros, zeros, zeros)
    dense = np.array([[7, 2, 3]], np.float32)
    assert features.pairs(dense).tolist() == [[4, 6, 9]]


def test_main_directions_are_those_of_most_spread() -> None:
    """They stand at right angles, the widest first, and no more are given than asked for."""
    random = np.random.default_rng(1)
    rows = (random.normal(size=(500, 4)) * [1, 9, 3, 0.1]).astype(np.float32)
    directions = main_directions(rows, 3)
    assert directions.shape == (4, 3)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    assert np.abs(directions).argmax(axis=0).tolist() == [1, 2, 0]
    assert main_directions(rows, 99).shape == (4, 4)


def test_rows_can_be_taken(fitted: tuple[Features, Inputs]) -> None:
    """A choice of rows takes the same rows of every part."""
    rows = np.array([4, 1])
    some = fitted[1][rows]
    assert np.array_equal(some.dense, fitted[1].dense[rows])
    assert np.array_equal(table(some.words), table(fitted[1].words)[rows])


def test_kept_features_give_the_same_inputs(fitted: tuple[Features, Inputs]) -> None:
    """From the arrays that are kept come the same inputs; one that is missing is told."""
    arrays = fitted[0].arrays()
    again = Features.from_arrays(arrays).of(STATES, TEXTS)
    assert np.array_equal(again.dense, fitted[1].dense)
    assert are_equal(again.words, fitted[1].words)
    for name in arrays:
        with pytest.raises(KeyError, match=name):
            Features.from_arrays({k: v for k, v in arrays.items() if k != name})
