"""Confidence: calibrated on what was held out, with a threshold that loses no more than said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semroute_classifier.artifacts import HeldOut
from semroute_classifier.confidence import CAUGHT, ENOUGH, ENOUGH_OUTSIDE, Confidence

TASKS = 2
LOSSES = (0.0, 0.05, 0.2)


def no_tiers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nothing of any tier."""
    return np.zeros(count, bool), np.ones(count, np.float32)


def inside(count: int, seed: int = 0) -> HeldOut:
    """Texts of two tasks whose odds say too much: the best task is right as often as half its log
    odds and twice the similarity have it."""
    random = np.random.default_rng(seed)
    log_odds = random.uniform(0, 6, count)
    similarity = random.uniform(0, 1, count).astype(np.float32)
    right = random.random(count) < 1 / (1 + np.exp(-(log_odds / 2 + 2 * similarity - 1.5)))
    best = random.integers(0, TASKS, count)
    probability = 1 / (1 + np.exp(-log_odds))
    odds = np.zeros((count, TASKS + 1))
    odds[np.arange(count), best] = probability
    odds[np.arange(count), 1 - best] = 1 - probability
    return HeldOut(np.where(right, best, 1 - best), odds, similarity, *no_tiers(count))


def outside(count: int, seed: int = 1, far: float = 0.3) -> HeldOut:
    """Texts of no task, whose odds are nearly even and whose nearest utterance is ``far``."""
    random = np.random.default_rng(seed)
    first = random.uniform(0.5, 0.6, count)
    odds = np.stack([first, 1 - first, np.zeros(count)], axis=1)
    similarity = random.uniform(far - 0.1, far, count).astype(np.float32)
    return HeldOut(np.full(count, TASKS), odds, similarity, *no_tiers(count))


def both(one: HeldOut, other: HeldOut) -> HeldOut:
    return HeldOut(
        np.concatenate([one.labels, other.labels]),
        np.concatenate([one.odds, other.odds]),
        np.concatenate([one.similarity, other.similarity]),
        *no_tiers(len(one.labels) + len(other.labels)),
    )


def sure(confidence: Confidence, held: HeldOut) -> np.ndarray:
    return confidence.of(held.odds[:, :TASKS].max(axis=1), held.similarity)


# ---- calibration


def test_confidence_is_as_high_as_it_is_often_right() -> None:
    """On texts that it was not measured on, every tenth by confidence is right that often.

    The odds themselves are not.
    """
    confidence = Confidence.measured(inside(4000), TASKS, 0.05)
    fresh = inside(4000, seed=5)
    best = fresh.odds[:, :TASKS]
    right = best.argmax(axis=1) == fresh.labels

    def worst(figures: np.ndarray) -> float:
        tenths = np.array_split(np.argsort(figures), 10)
        return float(max(abs(figures[rows].mean() - right[rows].mean()) for rows in tenths))

    assert worst(sure(confidence, fresh)) < 0.06
    assert worst(best.max(axis=1)) > 0.12


def test_both_figures_raise_it() -> None:
    """Likelier or nearer is surer."""
    confidence = Confidence.measured(inside(1000), TASKS, 0.05)
    steps = np.linspace(0.01, 0.99, 50)
    by_odds = [confidence.of_one(float(step), 0.5) for step in steps]
    by_similarity = [confidence.of_one(0.7, float(step)) for step in steps]
    assert (np.diff(by_odds) > 0).all()
    assert (np.diff(by_similarity) > 0).all()


def test_one_query_has_the_confidence_of_many() -> None:
    """Asked for one at a time, each text has what it has among all."""
    held = inside(200)
    confidence = Confidence.measured(held, TASKS, 0.05)
    best = held.odds[:, :TASKS].max(axis=1)
    alone = [confidence.of_one(*map(float, one)) for one in zip(best, held.similarity, strict=True)]
    assert sure(confidence, held) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("probability", [0.0, 1e-12, 0.5, 1.0])
@pytest.mark.parametrize("similarity", [-1.0, 0.0, 1.0])
def test_it_is_a_probability(probability: float, similarity: float) -> None:
    """Certainties and opposites have a confidence within [0, 1]."""
    for confidence in (Confidence.measured(inside(1000), TASKS, 0.05), Confidence(500, 500, -500)):
        assert 0 <= confidence.of_one(probability, similarity) <= 1


@pytest.mark.parametrize("count", [None, ENOUGH - 1])
def test_too_few_texts_leave_the_probability_as_it_is(count: int | None) -> None:
    """Where too little was held out, the odds are taken at their word and nothing is refused."""
    confidence = Confidence.measured(inside(count) if count else None, TASKS, 0.05)
    assert confidence.threshold == 0
    assert confidence.of_one(0.73, 0.1) == pytest.approx(0.73)
    assert Confidence.measured(inside(ENOUGH), TASKS, 0.05).threshold > 0


def test_where_all_is_right_the_probability_stays() -> None:
    """Without a mistake there is nothing to calibrate by; the threshold is measured even so."""
    held = inside(200)
    perfect = replace(held, labels=held.odds[:, :TASKS].argmax(axis=1))
    confidence = Confidence.measured(perfect, TASKS, 0.05)
    assert confidence.of_one(0.73, 0.1) == pytest.approx(0.73)
    assert confidence.threshold == pytest.approx(np.quantile(sure(confidence, perfect), 0.05))


def test_figures_that_mislead_are_not_learned() -> None:
    """Where the nearer texts are wrong, nearness does not lower the confidence."""
    held = inside(400)
    right = held.similarity < 0.5
    best = held.odds[:, :TASKS].argmax(axis=1)
    misled = replace(held, labels=np.where(right, best, 1 - best))
    confidence = Confidence.measured(misled, TASKS, 0.05)
    assert confidence.of_one(0.73, 0.9) == confidence.of_one(0.73, 0.1)


# ---- threshold


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outsiders", [0, 200])
def test_no_more_than_the_loss_is_refused(loss: float, outsiders: int) -> None:
    """Of the texts in scope at most the stated share stays below the threshold."""
    held = inside(1000)
    measured = both(held, outside(outsiders)) if outsiders else held
    confidence = Confidence.measured(measured, TASKS, loss)
    assert (sure(confidence, held) < confidence.threshold).mean() <= loss


def test_what_is_out_of_scope_is_caught() -> None:
    """Texts far from everything stay below the threshold, as many as are worth catching."""
    stray = outside(200)
    confidence = Confidence.measured(both(inside(1000), stray), TASKS, 0.2)
    assert (sure(confidence, stray) < confidence.threshold).mean() >= CAUGHT - 0.01


def test_nothing_is_lost_for_what_is_caught_already() -> None:
    """Where outsiders are far off, the threshold is no higher than what catches them needs."""
    held, stray = inside(1000), outside(200, far=-0.8)
    confidence = Confidence.measured(both(held, stray), TASKS, 0.2)
    assert (sure(confidence, stray) < confidence.threshold).mean() == pytest.approx(
        CAUGHT, abs=0.01
    )
    assert (sure(confidence, held) < confidence.threshold).mean() < 0.02


@pytest.mark.parametrize(
    ("count", "have_a_say"), [(ENOUGH_OUTSIDE - 1, False), (ENOUGH_OUTSIDE, True)]
)
def test_few_outsiders_have_no_say(count: int, have_a_say: bool) -> None:
    """Fewer outsiders than tell anything leave the threshold to the texts in scope."""
    held = inside(1000)
    confidence = Confidence.measured(both(held, outside(count, far=-0.8)), TASKS, 0.2)
    lost = float((sure(confidence, held) < confidence.threshold).mean())
    assert (lost < 0.1) is have_a_say
    if not have_a_say:
        assert lost == pytest.approx(0.2, abs=0.002)
