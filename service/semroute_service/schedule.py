"""Which candidate is asked next, and how long to wait before that.

In the order of the decision, each as often as the profile's retries allow. The same one is asked
again only where that may help, and soon: after at most ``_SOON_SECONDS``. A candidate that asked
for a longer wait is waited for when nobody else is ready and the deadline allows. One whose
circuit is open is not waited for; that is what the circuit is for.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_service.backends import Availability, BackendError
    from semroute_service.backends.availability import Call
    from semroute_service.decision import Candidate

_SOON_SECONDS = 2.0
_FIRST_BACKOFF_SECONDS = 0.2
HURRIED_SECONDS = 5.0
"""A backend that had less time, because the caller's deadline left no more, is not blamed."""
_RETRY_AFTER_SECONDS = 1.0
"""What a caller is told to wait where nobody said better."""


@dataclass(eq=False)
class Slot:
    """One candidate's chances. ``not_before`` is of ``time.monotonic``."""

    candidate: Candidate
    tries_left: int
    tried: int = 0
    not_before: float = 0.0
    asked: float = 0.0
    """Seconds that its last failure asked to wait."""
    is_vain: bool = False
    """True where it could never answer this request."""

    def wait(self, availability: Availability) -> float:
        """Seconds until it may be asked, as far as anybody asked to wait."""
        own = self.not_before - time.monotonic()
        return max(own, availability.cooling(self.candidate.model), 0.0)


@dataclass
class Schedule:
    """That of one request, which must be over by ``deadline`` (of ``time.monotonic``).

    Without a deadline it waits for nobody longer than ``patience`` seconds.
    """

    candidates: Sequence[Candidate]
    retries: int
    availability: Availability
    deadline: float | None
    patience: float
    unasked: list[Candidate] = field(default_factory=list)
    """Those that were passed over, because calls to them are not let through."""
    _slots: list[Slot] = field(init=False)
    _again: Slot | None = None

    def __post_init__(self) -> None:
        self._slots = [Slot(candidate, self.retries + 1) for candidate in self.candidates]

    async def next(self) -> tuple[Slot, Call] | None:
        """Who is asked next, when the time has come; None where nobody is left, or not in time."""
        while slot := self._pick():
            wait = slot.wait(self.availability)
            if wait > self._time_left():
                self.unasked += [s.candidate for s in self._slots if s.tries_left and not s.tried]
                return None
            if wait:
                await asyncio.sleep(wait)
            if call := self._begin(slot):
                return slot, call
        return None

    def beside(self, slot: Slot) -> tuple[Slot, Call] | None:
        """Another candidate that can be asked at once, while ``slot`` is under way."""
        for other in self._slots:
            fresh = other is not slot and not other.tried and other.tries_left
            if fresh and not other.wait(self.availability) and (call := self._begin(other)):
                return other, call
        return None

    def failed(self, slot: Slot, error: BackendError) -> None:
        """Take note of how ``slot`` ended: may it help to ask again, or to ask others?"""
        self._again = None
        slot.asked, slot.is_vain = _asked(error), not error.error_class.is_providers
        if error.error_class is ErrorClass.CALLER_CONTEXT_LENGTH:
            self._drop_shorter(slot)
        if not error.error_class.is_retryable or not slot.tries_left:
            slot.tries_left = 0
            return
        backoff = random.uniform(0, _FIRST_BACKOFF_SECONDS * 2 ** (slot.tried - 1))  # noqa: S311
        slot.not_before = time.monotonic() + max(min(backoff, _SOON_SECONDS), slot.asked)
        self._again = slot

    def give_up(self, slot: Slot) -> None:
        """Never ask ``slot`` again."""
        slot.tries_left = 0
        self._again = None

    def rest(self, slot: Slot) -> None:
        """``slot`` was let go for another, which says nothing against asking it again."""
        slot.tries_left += 1

    @property
    def ready_in(self) -> float:
        """Seconds that a caller had better wait before it asks again: until the first candidate
        that can answer this one may be asked, as far as is known."""
        waits = [
            max(self.availability.ready_in(slot.candidate.model), slot.asked)
            for slot in self._slots
            if not slot.is_vain
        ]
        return min(waits, default=0.0) or _RETRY_AFTER_SECONDS

    def share(self) -> float | None:
        """Seconds that an attempt that begins now may take to its first token, so that something
        is left of the deadline for those behind it that can be asked by then. None where there is
        no deadline, and for the last one: its time ends with the caller's patience, which is
        nobody's failure."""
        if self.deadline is None:
            return None
        left = self._time_left()
        behind = sum(
            self.availability.ready_in(slot.candidate.model) <= left / 2
            for slot in self._slots
            if not slot.tried and slot.tries_left
        )
        return max(left / (behind + 1), 0.001) if behind else None

    def _pick(self) -> Slot | None:
        waits = {s: s.wait(self.availability) for s in self._slots if s.tries_left}
        if self._again in waits and waits[self._again] <= min(_SOON_SECONDS, self._time_left()):
            return self._again
        return min(waits, key=lambda slot: waits[slot], default=None)

    def _begin(self, slot: Slot) -> Call | None:
        call = self.availability.begin(slot.candidate.model)
        if call is None:
            self.unasked.append(slot.candidate)
            self.give_up(slot)
            return None
        slot.tries_left -= 1
        slot.tried += 1
        return call

    def _time_left(self) -> float:
        return self.patience if self.deadline is None else self.deadline - time.monotonic()

    def _drop_shorter(self, slot: Slot) -> None:
        """A conversation that is too long for one is too long for those that hold no more."""
        too_short = slot.candidate.model.context
        for other in self._slots:
            window = other.candidate.model.context
            if too_short is not None and window is not None and window <= too_short:
                other.tries_left, other.is_vain = 0, True


def _asked(error: BackendError) -> float:
    """Seconds that the upstream asked to wait."""
    wait = error.retry_after
    return wait if wait is not None and math.isfinite(wait) else 0.0
