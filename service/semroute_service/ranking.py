"""The order of the candidates for an objective, each with the figures that it stands there for.

Nobody is admitted or denied here, and nothing is left out: candidates that were screened already
change places, and those that are equal keep the order written. How fast a model is expected to be
is what was measured of it of late; where nothing was, what is declared for it or reported of its
provider; and where nothing is, neither fast nor slow. Of a model whose speed nobody declared in
full nothing would ever be known while others are faster, so one call in ``EXPLORE_EVERY`` goes to
one that was not measured of late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

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
"""Of so many calls to the candidates together, one goes to one of unknown speed, if there is."""


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

    @property
    def is_unknown(self) -> bool:
        """True where nothing was measured, and what is declared does not tell it all."""
        return not self.measured and (self.first_token is None or self.tokens_per_second is None)

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
    *,
    explore: bool = True,
) -> tuple[Candidate, ...]:
    """``candidates`` in the order of ``objective``, each with its figures in words.

    ``max_tokens`` is how long the answer may be, as far as anybody said. With ``explore`` a model
    of unknown speed has its turn where latency is the objective.
    """
    tokens = min(max_tokens or TYPICAL_TOKENS, TYPICAL_TOKENS)
    paces = [pace(candidate.model) for candidate in candidates]
    figures = _figures(candidates, objective, paces, tokens)
    order = sorted(range(len(candidates)), key=lambda place: figures[place].value)
    if explore and objective is Objective.LATENCY:
        unknown = _to_explore(candidates, paces, order)
        if unknown is not None:
            figures[unknown] = _Figure(0.0, "not measured yet, so it is asked to find out")
            order.sort(key=lambda place: place != unknown)
    return tuple(replace(candidates[place], ranking=figures[place].words) for place in order)


class _Figure(NamedTuple):
    """The less the better; ``math.inf`` is not known."""

    value: float
    words: str


def _figures(
    candidates: Sequence[Candidate], objective: Objective, paces: Sequence[Pace], tokens: int
) -> list[_Figure]:
    match objective:
        case Objective.COST:
            return [_cost(candidate.estimated_cost) for candidate in candidates]
        case Objective.LATENCY:
            return [_Figure(pace.seconds(tokens), str(pace)) for pace in paces]
        case Objective.QUALITY:
            return [_quality(candidate.model.quality) for candidate in candidates]
        case Objective.BALANCED:
            return _balance(candidates, [pace.seconds(tokens) for pace in paces])


def _cost(nano: int | None) -> _Figure:
    if nano is None:
        return _Figure(math.inf, "no price is known")
    return _Figure(nano, f"up to {_short(nano / 1e9)} USD" if nano else "costs nothing")


def _quality(declared: float | None) -> _Figure:
    if declared is None:
        return _Figure(math.inf, "no quality is declared")
    return _Figure(-declared, f"quality {_short(declared)}")


def _balance(candidates: Sequence[Candidate], seconds: Sequence[float]) -> list[_Figure]:
    """The mean of three marks from 0 to 1. In cost and latency a mark is how much less a candidate
    takes than the one admitted that takes most, as a part of that; in quality it is a part of the
    best admitted. What is not known has the mark 0."""
    admitted = [candidate.admitted for candidate in candidates]
    costs = _parts([c.estimated_cost for c in candidates], admitted)
    times = _parts(seconds, admitted)
    qualities = _parts([c.model.quality for c in candidates], admitted)
    found = []
    for cost, time, quality in zip(costs, times, qualities, strict=True):
        marks = {"cost": _rest(cost), "latency": _rest(time), "quality": quality}
        score = math.fsum(mark or 0.0 for mark in marks.values()) / len(marks)
        words = ", ".join(
            f"{name} {'unknown' if mark is None else f'{mark:.2f}'}" for name, mark in marks.items()
        )
        found.append(_Figure(-score, f"{score:.2f} of 1: {words}"))
    return found


def _parts(values: Sequence[float | None], counted: Sequence[bool]) -> list[float | None]:
    """Each of ``values`` as a part of the greatest that is counted, and no more than 1."""
    known = [v for v, counts in zip(values, counted, strict=True) if counts and v is not None]
    greatest = max(known, default=0.0)
    return [None if v is None else min(v / greatest, 1.0) if greatest else 0.0 for v in values]


def _rest(part: float | None) -> float | None:
    return None if part is None else 1.0 - part


def _to_explore(
    candidates: Sequence[Candidate], paces: Sequence[Pace], order: Sequence[int]
) -> int | None:
    """The place of the one of unknown speed whose turn it is to go before a measured one.

    Whoever is asked closes the turn, so that others are not sent after it before it is known.
    """
    asked = [p for p in order if candidates[p].admitted and not candidates[p].unavailable]
    unknown = [place for place in asked if paces[place].is_unknown]
    due = sum(pace.calls for pace in paces) % EXPLORE_EVERY == 0
    if not (unknown and due and paces[asked[0]].measured):
        return None
    return min(unknown, key=lambda place: paces[place].calls)


def _short(value: float) -> str:
    """With two significant digits, and never fewer than those before the point."""
    if not value:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
