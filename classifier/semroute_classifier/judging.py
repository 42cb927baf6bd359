"""One encoder's verdict: from a text and its states to task, tier and confidence, with evidence.

Where there are utterances enough to learn from, trained heads give the odds of each task and tier;
where there are not, the nearest utterances vote. Either way the nearest utterances are the
evidence. A query that is nearer to the out-of-scope examples than to any task, or near to nothing,
is defaulted: it has no task, and the profile's default row applies. How sure is sure enough is
measured when the judge is made, because every encoder and every set of utterances has its own
scale.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.artifacts import labels_of
from semroute_classifier.confidence import Confidence
from semroute_classifier.encoders import vectors_of
from semroute_classifier.index import Index
from semroute_classifier.utterances import Tier
from semroute_classifier.verdict import MOST_ODDS, Basis, Classification, Match, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from semroute_classifier.artifacts import Artifact
    from semroute_classifier.encoders import Encoder, States
    from semroute_classifier.reading import Reading
    from semroute_classifier.utterances import UtteranceSet

NEIGHBOURS = 80
"""How many utterances vote; chosen by leave-one-out on the shipped utterances."""
TEMPERATURE = 0.12
"""The fall of similarity, in cosine, over which a vote loses the factor e; chosen likewise."""
ENOUGH_TO_MEASURE = 30
"""In-scope utterances below which nearness has to tell only more than the encoder's noise."""


class Judge:
    """Judges texts by one encoder's states. Immutable once made; safe to share."""

    def __init__(
        self, utterances: UtteranceSet, encoder: Encoder, artifact: Artifact, loss: float
    ) -> None:
        """``loss`` is the share of in-scope queries that may be defaulted."""
        self.utterances = utterances
        self.encoder = encoder
        self.artifact = artifact
        self._labels = labels_of(utterances)
        self._tasks = len(utterances.tasks)
        number = {label: i for i, label in enumerate(self._labels)}
        self._label_of = np.array([number[u.task] for u in utterances.utterances])
        self._tier_of = np.array([u.tier or 0 for u in utterances.utterances])
        self._tiered = {u.task for u in utterances.utterances if u.tier}
        self._least = [utterances.min_confidence.get(task, 0.0) for task in utterances.tasks]
        self.confidence = Confidence.measured(artifact.held_out, self._tasks, loss)
        # Where too little was held out to measure, nearness alone tells what is out of scope.
        self.least_similarity = 0.0 if self.confidence.threshold else self._measure_nearness(loss)

    @property
    def held_out_confidence(self) -> NDArray[np.float64]:
        """The confidence in the best task of each held-out utterance, 0 where it was ``none``."""
        held = self.artifact.held_out
        assert held is not None
        sure = self.confidence.of(held.odds[:, : self._tasks].max(axis=1), held.similarity)
        return np.where(self._in_scope(held.odds), sure, 0)

    def judge(
        self, readings: Sequence[Reading], states: States, evidence: int, stage: Stage = Stage.FULL
    ) -> list[Classification]:
        """The verdict on each reading, ``states`` of shape (readings, width)."""
        start = time.perf_counter()
        vectors = np.ascontiguousarray(vectors_of(states, self.encoder))
        heads = self.artifact.heads
        near = max(1, evidence) if heads else max(NEIGHBOURS, evidence)
        similarities, rows = self.artifact.index.search(vectors, near)
        if heads:
            task_odds, tier_odds = heads.odds(states, [reading.text for reading in readings])
        else:
            task_odds, tier_odds = self._votes(similarities, rows)
        seconds = time.perf_counter() - start
        return [
            self._verdict(
                task_odds[i],
                tier_odds[i],
                float(similarities[i, 0]),
                matches=self._matches(similarities[i, :evidence], rows[i, :evidence]),
                stage=stage,
                cut=reading.cut,
                seconds=seconds,
            )
            for i, reading in enumerate(readings)
        ]

    def _votes(
        self, similarities: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The odds of each label and of each tier, as the neighbours have it."""
        weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
        tasks = _vote(self._label_of[rows], weights, len(self._labels))
        best = tasks[:, : self._tasks].argmax(axis=1)
        mine = weights * (self._label_of[rows] == best[:, None])
        return tasks, _vote(self._tier_of[rows], mine, len(Tier) + 1)[:, 1:]

    def _verdict(
        self,
        task_odds: NDArray[np.float64],
        tier_odds: NDArray[np.float64],
        nearest: float,
        *,
        matches: tuple[Match, ...],
        stage: Stage,
        cut: bool,
        seconds: float,
    ) -> Classification:
        """What the odds and the similarity of the nearest utterance come to.

        In plain numbers: numpy's toll on each of a few would be the larger part of it.
        """
        odds: list[float] = task_odds.tolist()
        likeliest: list[int] = np.argsort(-task_odds, kind="stable").tolist()
        tasks = [label for label in likeliest[:3] if label < self._tasks]
        first = tasks[0]
        best = self._labels[first]
        second = odds[tasks[1]] if len(tasks) > 1 else 0.0
        sure = self.confidence.of_one(odds[first], nearest)
        matched = (
            odds[first] >= sum(odds[self._tasks :])
            and sure >= max(self.confidence.threshold, self._least[first])
            and nearest >= self.least_similarity
        )
        has_tier = best in self._tiered and tier_odds.any()
        best_tier = Tier(int(tier_odds.argmax()) + 1) if has_tier else None
        return Classification(
            task=best if matched else None,
            tier=best_tier if matched else None,
            confidence=sure,
            basis=Basis.MATCHED if matched else Basis.DEFAULTED,
            runner_up=self._labels[tasks[1]] if second > 0 else None,
            margin=odds[first] - second,
            best_task=best,
            best_tier=best_tier,
            tier_confidence=float(tier_odds.max()) if best_tier else 0.0,
            odds=tuple([(self._labels[i], odds[i]) for i in likeliest[:MOST_ODDS]]),
            matches=matches,
            stage=stage,
            cut=cut,
            search_seconds=seconds,
        )

    def _matches(
        self, similarities: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[Match, ...]:
        return tuple(
            [
                Match(self.utterances.utterances[row], min(similarity, 1.0))
                for similarity, row in zip(similarities.tolist(), rows.tolist(), strict=True)
            ]
        )

    def _in_scope(self, task_odds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether some task is likelier than ``none``."""
        beyond = task_odds[:, self._tasks :].sum(axis=1)
        return np.asarray(task_odds[:, : self._tasks].max(axis=1) >= beyond)

    def _measure_nearness(self, loss: float) -> float:
        """The similarity below which a query is near to nothing, where nothing else can tell.

        The encoder's noise; or the similarity to its nearest neighbour that all but ``loss`` of
        the utterances reach, each left out in its turn, where there are enough of them.
        """
        noise = self._noise()
        in_scope = self._label_of < self._tasks
        if in_scope.sum() < ENOUGH_TO_MEASURE:
            return noise
        own = np.ascontiguousarray(self.artifact.vectors[in_scope])
        nearest = Index(own).search(own, 2)[0][:, 1]
        return max(noise, float(np.quantile(nearest, loss)))

    def _noise(self) -> float:
        """The similarity that 19 in 20 pairs of unrelated sentences stay below."""
        vectors = vectors_of(self.encoder.encode(_UNRELATED), self.encoder)
        similarities = (vectors @ vectors.T)[np.triu_indices(len(_UNRELATED), k=1)]
        return float(np.quantile(similarities, 0.95))


def _vote(
    labels: NDArray[np.int64], weights: NDArray[np.float32], count: int
) -> NDArray[np.float64]:
    """The share of the weight that each of ``count`` labels has, shape (texts, count)."""
    votes = np.stack(
        [
            np.bincount(row, weight, minlength=count)
            for row, weight in zip(labels, weights, strict=True)
        ]
    )
    total = votes.sum(axis=1, keepdims=True)
    return votes / np.where(total > 0, total, 1)


_UNRELATED = (
    "The kettle has been boiling for ten minutes.",
    "Our train to Lisbon leaves from platform four.",
    "Interest rates rose again in the spring.",
    "She taught her parrot to whistle the anthem.",
    "Granite is harder than marble.",
    "The committee postponed its vote until Tuesday.",
    "Please water the ferns while I am away.",
    "A left-handed goalkeeper saved the penalty.",
    "The violin needs a new set of strings.",
    "Rust forms when iron meets oxygen and water.",
    "He forgot his umbrella in the cinema.",
    "Penguins huddle together to keep warm.",
    "The contract lapses at the end of June.",
    "Add a pinch of saffron to the rice.",
    "Jupiter has more than ninety moons.",
    "The elevator in the east wing is out of order.",
    "They painted the fence a pale shade of green.",
    "Compound sentences join two independent clauses.",
    "My grandfather collected stamps from Peru.",
    "The fog lifted shortly before noon.",
)
