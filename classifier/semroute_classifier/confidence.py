"""How sure a verdict is, and how sure it has to be.

Both are measured on utterances that the heads had not seen. The probability of the best task and
the similarity of the nearest utterance together say how likely the task is right: the one sees what
parts the tasks, the other how far the query lies from everything known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semroute_classifier.artifacts import HeldOut

ENOUGH = 100
"""Held-out texts below which the probability itself is taken."""
ENOUGH_OUTSIDE = 20
"""Held-out out-of-scope texts from which they have a say in the threshold."""
CAUGHT = 0.95
"""The share of those that is caught; to catch more is not worth an in-scope query."""
_EDGE = 1e-6
_MOST = 700.0
"""The power of e that a float still holds is a little larger."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """A logistic model of the best task's log odds and the nearest similarity, and the least
    confidence that a matched query has."""

    odds: float = 1.0
    similarity: float = 0.0
    offset: float = 0.0
    threshold: float = 0.0

    @classmethod
    def measured(cls, held_out: HeldOut | None, tasks: int, loss: float) -> Confidence:
        """Fit on texts held out; ``loss`` is the share of those in scope that may be defaulted."""
        if held_out is None or len(held_out.labels) < ENOUGH:
            return cls()
        best = held_out.odds[:, :tasks]
        right = best.argmax(axis=1) == held_out.labels
        found = cls()
        if 0 < right.sum() < len(right):
            inputs = np.stack([_log_odds(best.max(axis=1)), held_out.similarity], axis=1)
            model = LogisticRegression(C=1e3).fit(inputs, right)
            if (model.coef_ >= 0).all():  # otherwise the two say nothing of each other here
                found = cls(*map(float, (*model.coef_[0], model.intercept_[0])))
        sure = found.of(best.max(axis=1), held_out.similarity)
        threshold = _threshold(sure, held_out.labels < tasks, loss)
        return cls(found.odds, found.similarity, found.offset, threshold)

    def of_one(self, probability: float, similarity: float) -> float:
        """``of`` for one query, without numpy's toll on single numbers."""
        bounded = min(max(probability, _EDGE), 1 - _EDGE)
        log_odds = math.log(bounded / (1 - bounded))
        score = self.odds * log_odds + self.similarity * similarity + self.offset
        return 1 / (1 + math.exp(min(-score, _MOST)))

    def of(
        self, probability: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """How likely each best task is right, in [0, 1]."""
        score = self.odds * _log_odds(probability) + self.similarity * similarity + self.offset
        return np.asarray(1 / (1 + np.exp(-score)), np.float64)


def _threshold(sure: NDArray[np.float64], inside: NDArray[np.bool_], loss: float) -> float:
    """What all but ``loss`` of the in-scope texts reach; less where that catches enough."""
    most = float(np.quantile(sure[inside], loss))
    if (~inside).sum() < ENOUGH_OUTSIDE:
        return most
    return min(most, float(np.quantile(sure[~inside], CAUGHT)))


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(bounded / (1 - bounded)), np.float64)
