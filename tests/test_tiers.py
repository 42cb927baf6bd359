"""Tiers: what a task knows of its own beside what all tasks share."""

from __future__ import annotations

import numpy as np
import pytest

from semroute_classifier import tiers as tiers_of
from semroute_classifier.head import Fitted, Head
from semroute_classifier.tiers import ENOUGH, OwnTiers, held_out

WIDTH = 6
TASKS = 2
EVEN = np.full((1, 2), 0.5)


def examples(each: int = ENOUGH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, tasks and tiers of ``each`` texts a task. In task 0 the first state says that the
    tier is 1, in task 1 that it is 0."""
    random = np.random.default_rng(0)
    dense = random.normal(size=(TASKS * each, WIDTH)).astype(np.float32)
    tasks = np.repeat(np.arange(TASKS), each)
    return dense, tasks, ((dense[:, 0] > 0) ^ (tasks == 1)).astype(np.int64)


def undecided(count: int) -> tuple[Fitted, np.ndarray]:
    """A shared head that knows nothing of ``count`` texts, each held out once, and their rows."""
    folds = [np.arange(start, count, 2) for start in range(2)]
    rows, zeros = np.concatenate(folds), np.zeros((WIDTH, 2), np.float32)
    head = Head(zeros, zeros[:0], zeros[:0], zeros[0])
    splits = [(folds[1], folds[0]), (folds[0], folds[1])]
    return Fitted(head, rows, np.repeat(EVEN, count, axis=0), splits), rows


def test_each_task_learns_its_own() -> None:
    """The same states mean another tier in another task."""
    dense, tasks, tiers = examples(4 * ENOUGH)
    own = OwnTiers.fit(dense, tasks, tiers, TASKS)
    even = np.repeat(EVEN, len(dense), axis=0)
    assert (own.beside(even, dense, tasks).argmax(axis=1) == tiers).mean() > 0.9
    assert (own.beside(even, dense, 1 - tasks).argmax(axis=1) == tiers).mean() < 0.1


@pytest.mark.parametrize("each", [2, ENOUGH - 1])
def test_a_task_with_few_adds_nothing(each: int) -> None:
    """Below the number that is enough the shared odds stay as they are."""
    dense, tasks, tiers = examples(each)
    own = OwnTiers.fit(dense, tasks, tiers, TASKS)
    odds = np.random.default_rng(1).dirichlet([1, 1], size=len(dense))
    assert own.beside(odds, dense, tasks) == pytest.approx(odds, abs=1e-6)


def test_a_sure_shared_head_is_not_overruled() -> None:
    """Odds of nearly one and nearly none stay finite and keep their order."""
    dense, tasks, tiers = examples()
    own = OwnTiers.fit(dense, tasks, tiers, TASKS)
    odds = np.tile([1.0, 0.0], (len(dense), 1))
    beside = own.beside(odds, dense, tasks)
    assert np.isfinite(beside).all()
    assert (beside.argmax(axis=1) == 0).all()
    assert beside.sum(axis=1) == pytest.approx(1)


def test_a_text_has_the_same_tier_in_any_company() -> None:
    """Alone, a text's odds are those that it has among others, to the last digit."""
    dense, tasks, tiers = examples()
    own = OwnTiers.fit(dense, tasks, tiers, TASKS)
    together = own.beside(np.repeat(EVEN, len(dense), axis=0), dense, tasks)
    for i in range(5):
        alone = own.beside(EVEN, dense[[i]], tasks[[i]])
        assert np.array_equal(alone[0], together[i])


def test_held_out_texts_were_not_seen() -> None:
    """Tiers drawn at random are learned by heart, and not known where they were held out."""
    dense, tasks, _ = examples()
    tiers = np.random.default_rng(2).integers(0, 2, len(dense))
    shared, rows = undecided(len(dense))
    found = held_out(shared, dense, tasks, tiers, tasks[rows])
    assert found.shape == (len(dense), 2)
    assert (found.argmax(axis=1) == tiers[rows]).mean() < 0.65


def test_the_task_that_was_said_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A held-out text is judged as a query is: by the predicted task, be it the wrong one."""
    monkeypatch.setattr(tiers_of, "ENOUGH", ENOUGH // 3)
    dense, tasks, tiers = examples()
    shared, rows = undecided(len(dense))
    right = held_out(shared, dense, tasks, tiers, tasks[rows]).argmax(axis=1) == tiers[rows]
    wrong = held_out(shared, dense, tasks, tiers, 1 - tasks[rows]).argmax(axis=1) == tiers[rows]
    assert right.mean() > 0.8
    assert wrong.mean() < 0.2


def test_what_is_kept_says_the_same() -> None:
    """Arrays are enough to have the same again; one missing is an error."""
    dense, tasks, tiers = examples()
    own = OwnTiers.fit(dense, tasks, tiers, TASKS)
    odds = np.repeat(EVEN, len(dense), axis=0)
    again = OwnTiers.from_arrays(own.arrays())
    assert np.array_equal(own.beside(odds, dense, tasks), again.beside(odds, dense, tasks))
    with pytest.raises(KeyError):
        OwnTiers.from_arrays({"own": own.weights})
