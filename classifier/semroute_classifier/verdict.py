"""What a classifier says of a query."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semroute_classifier.utterances import Tier, Utterance


MOST_ODDS = 10
"""The labels whose odds a verdict tells, the likeliest ones."""


class Basis(enum.Enum):
    """What a classification rests on."""

    MATCHED = "matched"
    DEFAULTED = "defaulted"


class Stage(enum.Enum):
    """Which encoder's vectors a classification rests on."""

    FULL = "full"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Match:
    """An utterance near the query, with its cosine similarity in the vectors of the stage."""

    utterance: Utterance
    similarity: float


@dataclass(frozen=True, slots=True)
class Classification:
    """A verdict with its evidence.

    ``task`` and ``tier`` are None where the basis is DEFAULTED. ``best_task`` and ``best_tier`` are
    what they would have been, for evaluation; ``tier_confidence`` is the probability of the latter.
    ``confidence`` is that the best task is right, so it is low where the query was defaulted;
    ``margin`` is how much likelier the best task is than the runner-up; both lie in [0, 1].
    ``odds`` has the probabilities of the ``MOST_ODDS`` likeliest labels, likeliest first, ``none``
    being a label where the set has it. ``matches`` are nearest first. ``cut``: the query was too
    long to be read whole. ``in_context``: it was read together with the turn before.
    ``search_seconds`` is how long it took to search and weigh the batch that it was in.
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
    tier_confidence: float = 0.0
    odds: tuple[tuple[str, float], ...] = ()
    stage: Stage = Stage.FULL
    cut: bool = False
    in_context: bool = False
    search_seconds: float = field(default=0.0, compare=False)
