"""How fast models answer: moving quantiles of the calls of late."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 600.0
MOST = 128
"""So many values count at most, none older than so long."""
FEWEST_TOKENS = 5
"""An answer with fewer says nothing about tokens a second."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of late. Times are seconds; ``tokens_per_second`` is a median, None where no call brought
    enough tokens to tell."""

    first_token_p50: float
    first_token_p95: float
    count: int
    tokens_per_second: float | None


class Quantiles:
    """Exact quantiles of the last ``MOST`` values of the last ``WINDOW_SECONDS``.

    The values are kept sorted, so that each costs a search when it comes and one when it goes,
    and a quantile is a look.
    """

    __slots__ = ("_by_age", "_sorted")

    def __init__(self) -> None:
        self._by_age: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def add(self, now: float, value: float) -> None:
        """Count ``value``; one that is no finite number is none."""
        if not math.isfinite(value):
            return
        if len(self._by_age) >= MOST:
            self._drop_oldest()
        self._by_age.append((now, value))
        insort(self._sorted, value)

    def count(self, now: float) -> int:
        """How many values there are."""
        while self._by_age and self._by_age[0][0] <= now - WINDOW_SECONDS:
            self._drop_oldest()
        return len(self._sorted)

    def quantile(self, part: float) -> float:
        """The smallest value that at least ``part`` of them do not exceed; ask ``count`` first."""
        return self._sorted[max(0, math.ceil(part * len(self._sorted)) - 1)]

    def _drop_oldest(self) -> None:
        _, value = self._by_age.popleft()
        del self._sorted[bisect_left(self._sorted, value)]


class Speeds:
    """Of one model."""

    __slots__ = ("_first_tokens", "_rates")

    def __init__(self) -> None:
        self._first_tokens = Quantiles()
        self._rates = Quantiles()

    def first_token(self, now: float, seconds: float) -> None:
        """The first token came so long after the call."""
        self._first_tokens.add(now, max(0.0, seconds))

    def answered(self, now: float, tokens: int, seconds_after_first: float) -> None:
        """An answer of so many tokens took so long after its first."""
        if tokens >= FEWEST_TOKENS and seconds_after_first > 0:
            self._rates.add(now, (tokens - 1) / seconds_after_first)

    def speed(self, now: float) -> Speed | None:
        """None where no call of late brought a token."""
        count = self._first_tokens.count(now)
        if not count:
            return None
        return Speed(
            first_token_p50=self._first_tokens.quantile(0.5),
            first_token_p95=self._first_tokens.quantile(0.95),
            count=count,
            tokens_per_second=self._rates.quantile(0.5) if self._rates.count(now) else None,
        )
