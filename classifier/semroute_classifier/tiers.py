"""What each task adds to the tier: hard is another thing for a proof than for a sentence.

One head learns tiers from the utterances of all tasks. Beside it each task with enough of them has
a ridge regression of its own on the states and the surface, which knows little and errs apart from
the shared one; their scores are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve

from semroute_classifier.head import softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from semroute_classifier.head import Fitted

ENOUGH = 50
"""Utterances with a tier below which a task adds nothing."""
PENALTY, WEIGHT = 3.0, 2.0
"""Of the regressions, and of what they say beside the shared head; chosen by cross-validation."""
_RARE = 1e-9


@dataclass(frozen=True, slots=True)
class OwnTiers:
    """``weights`` of shape (tasks, width, tiers), ``offsets`` of shape (tasks, tiers); zeros for a
    task with too few utterances. Immutable; safe to share between threads."""

    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        dense: NDArray[np.float32],
        tasks: NDArray[np.int64],
        tiers: NDArray[np.int64],
        count: int,
    ) -> OwnTiers:
        """Learn from texts with tiers, ``dense`` of shape (texts, width), of ``count`` tasks; each
        tier is of some text."""
        targets = np.eye(int(tiers.max()) + 1, dtype=np.float32)[tiers]
        targets -= targets.mean(axis=0)
        weights = np.zeros((count, dense.shape[1], targets.shape[1]), np.float32)
        offsets = np.zeros((count, targets.shape[1]), np.float32)
        for task in range(count):
            rows = np.flatnonzero(tasks == task)
            if len(rows) >= ENOUGH:
                offsets[task] = WEIGHT * targets[rows].mean(axis=0)
                weights[task] = WEIGHT * _ridge(dense[rows], targets[rows])
        return cls(weights, offsets)

    def beside(
        self, odds: NDArray[np.float64], dense: NDArray[np.float32], tasks: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The shared head's ``odds`` of shape (texts, tiers), with what each text's task adds."""
        own = np.einsum("ij,ijk->ik", dense, self.weights[tasks]) + self.offsets[tasks]
        return softmax(np.log(odds + _RARE) + own)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Everything that has to be kept."""
        return {"own": self.weights, "offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> OwnTiers:
        """Raises ``KeyError`` where one is missing."""
        return cls(arrays["own"], arrays["offsets"])


def held_out(
    tier: Fitted,
    dense: NDArray[np.float32],
    tasks: NDArray[np.int64],
    tiers: NDArray[np.int64],
    said: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The odds of the tier of each of ``tier.rows``, none of whose heads had seen it; ``said`` are
    the tasks that were predicted for these, ``tasks`` those of all texts."""
    count = int(max(tasks.max(), said.max())) + 1
    found, start = [], 0
    for train, held in tier.splits:
        own = OwnTiers.fit(dense[train], tasks[train], tiers[train], count)
        part = slice(start, start := start + len(held))
        found.append(own.beside(tier.odds[part], dense[held], said[part]))
    return np.concatenate(found)


def _ridge(dense: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    gram = dense @ dense.T
    gram[np.diag_indices_from(gram)] += PENALTY
    dual = solve(gram, targets - targets.mean(axis=0), assume_a="pos", overwrite_a=True)
    return np.asarray(dense.T @ dual, np.float32)
