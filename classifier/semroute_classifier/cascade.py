"""When the static encoder may answer: a gate chosen so that nothing is lost by it.

The gate is three bounds: on the confidence of the static judge in the task, on the similarity of
the nearest utterance in its vectors, and on the probability of the tier. Both judges have spoken on
the same held-out utterances, so what a gate would have cost is counted, not guessed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semroute_classifier.judging import Judge
    from semroute_classifier.verdict import Classification

SLIP = 0.01
"""The share of held-out out-of-scope utterances that may pass the gate."""
LOST = 0.001
"""The share of held-out in-scope utterances by which the static judge may be right less often, of
their tasks or of their tiers."""
SURE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
NEAREST = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the in-scope utterances whose nearest other is less similar than the gate allows. Never
none: what lies far from everything known is for the full encoder to see."""
TIER_SURE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
WORTH = 0.1
"""The share of queries below which a second stage is not worth having."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The bounds that a static verdict reaches, and the share of held-out queries that do."""

    confidence: float
    similarity: float
    tier: float
    share: float

    def opens(self, verdict: Classification) -> bool:
        return (
            verdict.task is not None
            and verdict.confidence >= self.confidence
            and verdict.matches[0].similarity >= self.similarity
            and (verdict.tier is None or verdict.tier_confidence >= self.tier)
        )


def choose(static: Judge, full: Judge) -> Gate | None:
    """The gate that lets most pass while the static judge, of task and tier, is as good as never
    wrong where the full one is right; None where no gate is worth it, or nothing was held out to
    choose by."""
    quick, slow = static.artifact.held_out, full.artifact.held_out
    if quick is None or slow is None or not np.array_equal(quick.labels, slow.labels):
        return None
    tasks = len(full.utterances.tasks)
    inside = quick.labels < tasks
    sure = static.held_out_confidence
    quick_right = quick.odds[:, :tasks].argmax(axis=1) == quick.labels
    slow_right = slow.odds[:, :tasks].argmax(axis=1) == slow.labels
    best: Gate | None = None
    for confidence, share, tier in itertools.product(SURE, NEAREST, TIER_SURE):
        similarity = float(np.quantile(quick.similarity[inside], share))
        passed = (sure >= confidence) & (quick.similarity >= similarity) & (quick.tier_sure >= tier)
        answered = _mean(passed[inside])
        if answered <= max(WORTH, best.share if best else 0.0) or _mean(passed[~inside]) > SLIP:
            continue
        lost = slow_right[passed & inside].sum() - quick_right[passed & inside].sum()
        tiers_lost = slow.tier_right[passed].sum() - quick.tier_right[passed].sum()
        if max(lost, tiers_lost) <= LOST * inside.sum():
            best = Gate(confidence, similarity, tier, answered)
    return best


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0
