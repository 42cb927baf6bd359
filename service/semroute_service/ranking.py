"""The order of the candidates for an objective, each with the figures that it stands there for.

Nobody is admitted or denied here, and nothing is left out: candidates that were screened already
change places, and those that are equal keep the order written. How fast a model is expected to be
is what was measured of it of late; where nothing was, what is declared for it or reported of its
provider; and where nothing is, neither fast nor slow. Of a model of the last kind nothing would
ever be known while others are faster, so one call in ``EXPLORE_EVERY`` goes to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from semroute_service.query import Objective

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from semroute_service.backends import Availability
    from semroute_service.decision import Candidate
    from semroute_service.profile import Model

TYPICAL_TOKENS = 500
"""How long an answer is expected to be, unless the request asks for a shorter one."""
WAITING_SECONDS = 0.5
"""What each request that waits in a server's own queue is expected to cost the next one."""
UNKNOWN_FIRST_TOKEN_SECONDS = 1.0
UNKNOWN_TOKENS_PER_SECOND = 50.0
EXPLORE_EVERY = 20
"""Of so many calls to the candidates together, one goes to a candidate of unknown speed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model is expected to be. Times are seconds; None is not known.

    ``measured`` is how many calls of late say so, 0 where none does; ``waiting`` is how many
    requests wait in its server's queue, and ``calls`` how many were made since the start.
    """

    first_token: float | None = None
    tokens_per_second: float | None = None
    measured: int = 0
    waiting: int = 0
    calls: int = 0

    def seconds(self, tokens: int) -> float:
        """Until an answer of so many tokens is whole."""
        first = UNKNOWN_FIRST_TOKEN_SECONDS if self.first_token is None else self.first_token
        rate = self.tokens_per_second or UNKNOWN_TOKENS_PER_SECOND
        return first + self.waiting * WAITING_SECONDS + tokens / rate

    def __str__(self) -> str:
        parts = ["not measured yet"]
        if self.first_token is not None:
            rate = self.tokens_per_second
            then = f" and {_short(rate)} tokens a second" if rate else ""
            parts = [f"about {_short(self.first_token)} s to the first token{then}"]
            calls = "1 call" if self.measured == 1 else f"{self.measured} calls"
            parts.append(f"measured over {calls}" if self.measured else "as declared")
        return ", ".join(parts + ([f"{self.waiting} waiting there"] if self.waiting else []))


def pace_of(model: Model, availability: Availability) -> Pace:
    """What is known of the speed of ``model`` at this moment."""
    measured, declared = availability.speed(model), model.speed
    first = declared.first_token_seconds if declared else None
    rate = declared.tokens_per_second if declared else None
    if measured:
        first = measured.first_token_p50
        rate = measured.tokens_per_second or rate
    return Pace(
        first_token=first,
        tokens_per_second=rate,
        measured=measured.count if measured else 0,
        waiting=availability.waiting(model.backend) or 0,
        calls=availability.standing(model).calls,
    )


def rank(
    candidates: Sequence[Candidate],
    objective: Objective,
    max_tokens: int | None,
    pace: Callable[[Model], Pace],
) -> tuple[Candidate, ...]:
    """``candidates`` in the order of ``objective``, each with its figures in words.

    ``max_tokens`` is how long the answer may be, as far as anybody said.
    """
    if objective is Objective.LATENCY:
        return _by_latency(candidates, [pace(c.model) for c in candidates], _length(max_tokens))
    figures = {
        Objective.COST: lambda: [_cost(c) for c in candidates],
        Objective.QUALITY: lambda: [_quality(c) for c in candidates],
        Objective.BALANCED: lambda: _balance(candidates, _length(max_tokens), pace),
    }[objective]()
    return tuple(candidates[place] for place in _places(candidates, figures))


class _Figure(NamedTuple):
    """The less the better; ``math.inf`` is not known."""

    value: float
    words: str
