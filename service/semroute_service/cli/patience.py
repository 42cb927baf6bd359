"""How long a line of a batch waits before it is asked again, and when that has no point any more.

A line that a backend has had waits on its own account, which has an end. One that reached nobody
has cost nothing: it waits for as long as the run may be without any answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from semroute import RouterError
    from semroute_service.cli.answer import Answer

_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_MOST_FAILURES = 3
"""So often a line is taken along when backends fail; it may be the line that makes them fail."""
_MOMENT_SECONDS = 1.0
"""Whoever can be asked again so soon is not known to be down."""
_TRIAL_SECONDS = 60.0
"""So long nobody else is let through to a backend that is being tried again, though the trial
may well end sooner."""


class Delay(NamedTuple):
    """In seconds: ``most``, and after ``least`` only until somebody has an answer."""

    least: float
    most: float


@dataclass
class Tries:
    """What one line has been through."""

    waits: int = 0
    seconds: float = 0.0
    failures: int = 0
    losses: int = 0
    alone: bool = False


@dataclass
class Patience:
    """That of one run, which waits up to ``wait`` seconds."""

    wait: float
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """The next answer, or the end of the run."""
    _silent_since: float | None = None

    def answered(self) -> None:
        """A line has its answer: backends may be well again, and there is time to wait anew."""
        self._silent_since = None
        self.wake()

    def wake(self) -> None:
        """Whoever waits for news need not any longer."""
        self.news.set()
        self.news = asyncio.Event()

    def delay(self, error: RouterError, answer: Answer, tries: Tries) -> Delay | None:
        """After which the same may be asked again; None where that would not help."""
        if error.reason in {"RATE_LIMITED", "OVERLOADED"}:
            return self._own(error, tries)
        if error.reason != "BACKENDS_UNAVAILABLE":
            return None
        if not answer.was_asked:
            return self._until_one_is_let_through(error, tries)
        if answer.was_rate_limited:
            return self._own(error, tries)
        tries.failures += 1
        is_down = (error.retry_after or 0.0) > _MOMENT_SECONDS
        return self._own(error, tries) if is_down and tries.failures <= _MOST_FAILURES else None

    def _own(self, error: RouterError, tries: Tries) -> Delay | None:
        """On the line's own account."""
        delay = max(error.retry_after or 0.0, backoff(tries.waits))
        if tries.seconds + delay > self.wait:
            return None
        tries.waits, tries.seconds = tries.waits + 1, tries.seconds + delay
        return Delay(delay, delay)

    def _until_one_is_let_through(self, error: RouterError, tries: Tries) -> Delay | None:
        """On the account of all, which every answer clears."""
        told, now = error.retry_after, time.monotonic()
        if told is None or told > max(self.wait, _TRIAL_SECONDS):
            return None
        if self._silent_since is None:
            self._silent_since = now
        left = self._silent_since + self.wait - now
        if left <= 0:
            return None
        least, tries.waits = backoff(tries.waits), tries.waits + 1
        return Delay(min(least, left), min(max(told, least), left))


def backoff(tries: int) -> float:
    """Seconds to wait after so many tries in vain."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(tries, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads calls, guards nothing
