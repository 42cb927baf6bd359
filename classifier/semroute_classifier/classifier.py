"""The verdict: from a query to task, tier and confidence, with the evidence.

Where there are utterances enough to learn from, a trained head gives the odds of each task and
tier; where there are not, the nearest utterances vote. Either way the nearest utterances are the
evidence. A query that is nearer to the out-of-scope examples than to any task, or near to nothing,
is defaulted: it has no task, and the profile's default row applies. How near is near is measured
when the classifier is built, because every encoder has its own scale.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.artifacts import Artifact, labels_of, load_or_build
from semroute_classifier.encoders import vectors_of
from semroute_classifier.index import Index
from semroute_classifier.utterances import NONE, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Encoder, States
    from semroute_classifier.utterances import Utterance, UtteranceSet

MAX_TEXT = 32_768
"""Characters of a query that are looked at; more than any encoder's window holds."""
NEIGHBOURS = 80
"""How many utterances vote; chosen by leave-one-out on the shipped utterances."""
TEMPERATURE = 0.12
"""The fall of similarity, in cosine, over which a vote loses the factor e; chosen likewise."""
IN_SCOPE_LOSS = 0.05
"""The share of in-scope queries that the threshold may send to the default."""
ENOUGH_TO_MEASURE = 30
"""In-scope utterances below which the threshold is the encoder's noise alone."""


class Basis(enum.Enum):
    """What a classification rests on."""

    MATCHED = "matched"
    DEFAULTED = "defaulted"


@dataclass(frozen=True, slots=True)
class Match:
    """An utterance near the query, with its cosine similarity."""

    utterance: Utterance
    similarity: float


@dataclass(frozen=True, slots=True)
class Classification:
    """A verdict with its evidence.

    ``task`` and ``tier`` are None where the basis is DEFAULTED. ``best_task`` and ``best_tier``
    are what they would have been, for evaluation. ``confidence`` is that the best task is right, so
    it is low where the query was defaulted; ``margin`` is its lead over the runner-up; both lie in
    [0, 1]. ``matches`` are nearest first.
    """

    task: str | None
    tier: Tier | None
    confidence: float
    basis: Basis
    matches: tuple[Match, ...]
    runner_up: str | None
    margin: float
    best_task: str
    best_tier: Tier | None


class Classifier:
    """Judges queries against an utterance set. Immutable once built; safe to share."""

    def __init__(self, utterances: UtteranceSet, encoder: Encoder, artifact: Artifact) -> None:
        """``artifact`` is what was built from ``utterances`` with ``encoder``."""
        self.utterances = utterances
        self.encoder = encoder
        self._index = Index(artifact.vectors)
        self._task_head = artifact.task_head
        self._tier_head = artifact.tier_head
        self._labels = labels_of(utterances)
        self._tasks = len(utterances.tasks)
        number = {label: i for i, label in enumerate(self._labels)}
        self._label_of = np.array([number[u.task] for u in utterances.utterances])
        self._tier_of = np.array([u.tier or 0 for u in utterances.utterances])
        self._tiered = {u.task for u in utterances.utterances if u.tier}
        self.threshold = self._measure_threshold(artifact)

    @classmethod
    def build(
        cls,
        utterances: UtteranceSet,
        encoder: Encoder,
        home: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Classifier:
        """Embed the utterances and learn from them, or take both from ``home``."""
        return cls(utterances, encoder, load_or_build(utterances, encoder, home, progress))

    def embed(self, texts: Sequence[str]) -> States:
        """One encoder pass: shape (texts, width). Blocks; a server calls it in a thread."""
        return self.encoder.encode([text[:MAX_TEXT] for text in texts])

    def judge(
        self, texts: Sequence[str], states: States, evidence: int = 5
    ) -> list[Classification]:
        """The verdict on each of ``texts``, whose states ``embed`` gave, with so many matches."""
        vectors = np.ascontiguousarray(vectors_of(states, self.encoder))
        similarities, rows = self._index.search(vectors, max(NEIGHBOURS, evidence))
        weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
        clipped = [text[:MAX_TEXT] for text in texts]
        task_odds = self._task_odds(clipped, states, rows, weights)
        tier_odds = self._tier_odds(clipped, states, rows, weights, task_odds)
        return [
            self._verdict(task_odds[i], tier_odds[i], similarities[i], rows[i], evidence)
            for i in range(len(texts))
        ]

    def _task_odds(
        self,
        texts: Sequence[str],
        states: States,
        rows: NDArray[np.int64],
        weights: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """The probability of each label, shape (texts, labels)."""
        if self._task_head:
            return self._task_head.odds(states, texts)
        return _vote(self._label_of[rows], weights, len(self._labels))

    def _tier_odds(
        self,
        texts: Sequence[str],
        states: States,
        rows: NDArray[np.int64],
        weights: NDArray[np.float32],
        task_odds: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The odds of LOW, MEDIUM and HIGH, shape (texts, 3); zeros where nothing says."""
        if self._tier_head:
            return self._tier_head.odds(states, texts)
        best = task_odds[:, : self._tasks].argmax(axis=1)
        mine = weights * (self._label_of[rows] == best[:, None])
        return _vote(self._tier_of[rows], mine, len(Tier) + 1)[:, 1:]

    def _verdict(
        self,
        task_odds: NDArray[np.float64],
        tier_odds: NDArray[np.float64],
        similarities: NDArray[np.float32],
        rows: NDArray[np.int64],
        evidence: int,
    ) -> Classification:
        tasks, out_of_scope = task_odds[: self._tasks], task_odds[self._tasks :].sum()
        order = np.argsort(-tasks, kind="stable")
        best = self._labels[order[0]]
        has_second = len(order) > 1 and tasks[order[1]] > 0
        matched = bool(tasks[order[0]] >= out_of_scope and similarities[0] >= self.threshold)
        has_tier = best in self._tiered and tier_odds.any()
        best_tier = Tier(int(tier_odds.argmax()) + 1) if has_tier else None
        return Classification(
            task=best if matched else None,
            tier=best_tier if matched else None,
            confidence=float(tasks[order[0]]),
            basis=Basis.MATCHED if matched else Basis.DEFAULTED,
            matches=tuple(
                Match(self.utterances.utterances[row], float(min(similarity, 1.0)))
                for similarity, row in zip(similarities[:evidence], rows[:evidence], strict=True)
            ),
            runner_up=self._labels[order[1]] if has_second else None,
            margin=float(tasks[order[0]] - (tasks[order[1]] if has_second else 0.0)),
            best_task=best,
            best_tier=best_tier,
        )

    def _measure_threshold(self, artifact: Artifact) -> float:
        """The similarity below which a query is near to nothing: the encoder's noise.

        Without out-of-scope examples to learn from, nearness alone has to tell what is in scope.
        Then it is the similarity to its nearest neighbour that all but ``IN_SCOPE_LOSS`` of the
        utterances reach, each left out in its turn, where there are enough of them.
        """
        noise = self._noise()
        knows_none = self._task_head is not None and NONE in self._labels
        in_scope = self._label_of < self._tasks
        if knows_none or in_scope.sum() < ENOUGH_TO_MEASURE:
            return noise
        own = np.ascontiguousarray(artifact.vectors[in_scope])
        nearest = Index(own).search(own, 2)[0][:, 1]
        return max(noise, float(np.quantile(nearest, IN_SCOPE_LOSS)))

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
