"""The circuit breaker of one model on one backend.

Closed, it lets calls through and watches them. It opens when several fail in a row, or when half
of those of late failed, and lets none through for a while. Then it is half open: one call, the
probe, is let through, and its end closes the circuit or opens it for longer. Cooldowns double as
long as the model does not stay well.

Time is whatever the caller's clock says, in seconds, and never runs backwards.
"""

from __future__ import annotations

import enum
from collections import deque

IN_A_ROW = 3
"""Failures after which it opens."""
FEWEST = 10
WINDOW_SECONDS = 30.0
"""It opens, too, where at least half of so many calls, in so long a time, failed."""
FIRST_COOLDOWN_SECONDS = 5.0
LONGEST_COOLDOWN_SECONDS = 300.0
WELL_SECONDS = 60.0
"""How long it must stay closed, and no shorter than its last cooldown, for that to count for
nothing."""
PROBE_SECONDS = 60.0
"""After so long a probe that did not end is not waited for."""
_MOST = 100
"""Calls that it remembers."""


class Circuit(enum.Enum):
    """Whether calls are let through: all, none, or one to see whether it is well again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Ticket:
    """A call that was let through; it is worth something only while the circuit stays as it was."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


class Breaker:
    """Knows calls only by their tickets."""

    __slots__ = (
        "_closed_at",
        "_cooldown",
        "_epoch",
        "_failed",
        "_in_a_row",
        "_is_open",
        "_open_until",
        "_probe",
        "_probe_until",
        "_recent",
        "why",
    )

    def __init__(self) -> None:
        self.why = ""
        """Why it opened when it last did, in words."""
        self._recent: deque[tuple[float, bool]] = deque()
        """When each call of late ended, and whether it was a success."""
        self._failed = 0
        self._in_a_row = 0
        self._epoch = 0
        self._is_open = False
        self._open_until = 0.0
        self._cooldown = 0.0
        self._closed_at: float | None = None
        self._probe: Ticket | None = None
        self._probe_until = 0.0

    def circuit(self, now: float) -> Circuit:
        """What it is at this moment."""
        if not self._is_open:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self._open_until else Circuit.HALF_OPEN

    def ready_in(self, now: float) -> float:
        """Seconds until ``enter`` may let a call through; 0.0 now."""
        if not self._is_open:
            return 0.0
        until = max(self._open_until, self._probe_until if self._probe else 0.0)
        return max(0.0, until - now)

    def enter(self, now: float) -> Ticket | None:
        """A ticket for one call, or None where none is let through now."""
        if self.ready_in(now) > 0:
            return None
        ticket = Ticket(self._epoch)
        if self._is_open:
            self._probe, self._probe_until = ticket, now + PROBE_SECONDS
        return ticket

    def leave(self, ticket: Ticket, now: float, success: bool | None) -> None:
        """The call has ended; None where that says nothing about the model.

        What began before the circuit last opened or closed comes too late to count.
        """
        if self._is_open:
            if ticket is self._probe:
                self._probe = None
                self._judge_probe(now, success)
        elif success is not None and ticket.epoch == self._epoch:
            self._note(now, success)

    def hurry(self, now: float) -> None:
        """There is news that it is well again: it need not wait any longer to be tried."""
        self._open_until = min(self._open_until, now)

    def _judge_probe(self, now: float, success: bool | None) -> None:
        if success:
            self._close(now)
        elif success is False:
            self._open(now, "failed again when it was tried after a pause")

    def _note(self, now: float, success: bool) -> None:
        self._forget(now)
        self._recent.append((now, success))
        if success:
            self._in_a_row = 0
            return
        self._failed += 1
        self._in_a_row += 1
        calls = len(self._recent)
        if self._in_a_row >= IN_A_ROW:
            self._open(now, f"failed {self._in_a_row} times in a row")
        elif calls >= FEWEST and 2 * self._failed >= calls:
            self._open(now, f"failed {self._failed} of its last {calls} calls")

    def _forget(self, now: float) -> None:
        """What is too old, or too much, to count."""
        recent = self._recent
        while recent and (len(recent) >= _MOST or recent[0][0] <= now - WINDOW_SECONDS):
            self._failed -= not recent.popleft()[1]

    def _open(self, now: float, why: str) -> None:
        well = now - self._closed_at if self._closed_at is not None else 0.0
        if not self._cooldown or well >= max(WELL_SECONDS, self._cooldown):
            self._cooldown = FIRST_COOLDOWN_SECONDS
        else:
            self._cooldown = min(2 * self._cooldown, LONGEST_COOLDOWN_SECONDS)
        self.why = why
        self._is_open, self._closed_at = True, None
        self._open_until = now + self._cooldown
        self._epoch += 1

    def _close(self, now: float) -> None:
        self._is_open, self._closed_at = False, now
        self._recent.clear()
        self._failed = self._in_a_row = 0
        self._epoch += 1
