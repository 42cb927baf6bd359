"""The verdict: from a query's vector to task, tier and confidence, with the evidence.

The utterances nearest to the query vote, each with a weight that falls with its distance. A query
that is near to nothing, or whose neighbours are out-of-scope examples, is defaulted: it has no
task, and the profile's default row applies. How near is near is measured when the classifier is
built, from the utterances and the encoder themselves, because every encoder has its own scale.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.artifacts import load_or_build_vectors
from semroute_classifier.index import Index
from semroute_classifier.utterances import NONE, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Encoder, Vectors
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
    """Judges vectors against an utterance set. Immutable once built; safe to share."""

    def __init__(self, utterances: UtteranceSet, encoder: Encoder, vectors: Vectors) -> None:
        """``vectors`` are those of ``utterances`` by ``encoder``, shape (n, dimension)."""
        self.utterances = utterances
        self.encoder = encoder
        self._index = Index(vectors)
        self._labels = (*utterances.tasks, NONE)
        number = {label: i for i, label in enumerate(self._labels)}
        self._label_of = np.array([number[u.task] for u in utterances.utterances])
        self._tier_of = np.array([u.tier or 0 for u in utterances.utterances])
        self.threshold = self._measure_threshold(vectors)

    @classmethod
    def build(
        cls,
        utterances: UtteranceSet,
        encoder: Encoder,
        home: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Classifier:
        """Embed the utterances, or take their vectors from ``home``, and index them."""
        return cls(utterances, encoder, load_or_build_vectors(utterances, encoder, home, progress))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One encoder pass: shape (texts, dimension). Blocks; a server calls it in a thread."""
        return self.encoder.encode([text[:MAX_TEXT] for text in texts])

    def judge(self, vectors: Vectors, evidence: int = 5) -> list[Classification]:
        """The verdict on each row of ``vectors``, with ``evidence`` matches."""
        similarities, rows = self._index.search(vectors, max(NEIGHBOURS, evidence))
        return [self._verdict(s, r, evidence) for s, r in zip(similarities, rows, strict=True)]

    def _verdict(
        self, similarities: NDArray[np.float32], rows: NDArray[np.int64], evidence: int
    ) -> Classification:
        weights = np.exp((similarities - similarities[0]) / TEMPERATURE)
        labels = self._label_of[rows]
        shares = np.bincount(labels, weights, minlength=len(self._labels)) / weights.sum()
        in_scope = np.argsort(-shares[:-1], kind="stable")
        best = int(in_scope[0])
        second = int(in_scope[1]) if len(in_scope) > 1 and shares[in_scope[1]] > 0 else None
        matched = shares[best] >= shares[-1] and similarities[0] >= self.threshold
        best_tier = self._tier(labels == best, rows, weights)
        return Classification(
            task=self._labels[best] if matched else None,
            tier=best_tier if matched else None,
            confidence=float(shares[best]),
            basis=Basis.MATCHED if matched else Basis.DEFAULTED,
            matches=tuple(
                Match(self.utterances.utterances[row], float(min(similarity, 1.0)))
                for similarity, row in zip(similarities[:evidence], rows[:evidence], strict=True)
            ),
            runner_up=self._labels[second] if second is not None else None,
            margin=float(shares[best] - (shares[second] if second is not None else 0.0)),
            best_task=self._labels[best],
            best_tier=best_tier,
        )

    def _tier(
        self, mine: NDArray[np.bool_], rows: NDArray[np.int64], weights: NDArray[np.floating]
    ) -> Tier | None:
        """The tier that the winning task's neighbours vote for; None where they have none."""
        votes = np.bincount(self._tier_of[rows[mine]], weights[mine], minlength=4)[1:]
        return Tier(int(votes.argmax()) + 1) if votes.any() else None

    def _measure_threshold(self, vectors: Vectors) -> float:
        """The similarity below which a query is near to nothing.

        With enough utterances: the similarity to its nearest in-scope neighbour that all but
        ``IN_SCOPE_LOSS`` of the in-scope utterances reach, each left out in its turn; never below
        the encoder's noise, which is what unrelated sentences reach.
        """
        noise = self._noise()
        in_scope = self._label_of != len(self._labels) - 1
        if in_scope.sum() < ENOUGH_TO_MEASURE:
            return noise
        own = np.ascontiguousarray(vectors[in_scope])
        nearest = Index(own).search(own, 2)[0][:, 1]
        return max(noise, float(np.quantile(nearest, IN_SCOPE_LOSS)))

    def _noise(self) -> float:
        """The similarity that 19 in 20 pairs of unrelated sentences stay below."""
        vectors = self.encoder.encode(_UNRELATED)
        similarities = (vectors @ vectors.T)[np.triu_indices(len(_UNRELATED), k=1)]
        return float(np.quantile(similarities, 0.95))


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
