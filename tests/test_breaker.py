"""The breaker: when it opens, for how long, and how it comes back. Its clock is a number."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from semroute_service.backends.breaker import (
    FEWEST,
    FIRST_COOLDOWN_SECONDS,
    IN_A_ROW,
    LONGEST_COOLDOWN_SECONDS,
    PROBE_SECONDS,
    WELL_SECONDS,
    WINDOW_SECONDS,
    Breaker,
    Circuit,
    Ticket,
)


def entered(breaker: Breaker, now: float) -> Ticket:
    ticket = breaker.enter(now)
    assert ticket
    return ticket


def fails(breaker: Breaker, now: float, times: int = IN_A_ROW) -> None:
    for _ in range(times):
        breaker.leave(entered(breaker, now), now, success=False)


def works(breaker: Breaker, now: float) -> None:
    breaker.leave(entered(breaker, now), now, success=True)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    fails(breaker, now)
    assert breaker.circuit(now) is Circuit.OPEN
    return breaker


def test_it_opens_on_failures_in_a_row() -> None:
    """One fewer does not open it, and a success in between begins the count anew."""
    breaker = Breaker()
    fails(breaker, 0, IN_A_ROW - 1)
    works(breaker, 1)
    fails(breaker, 2, IN_A_ROW - 1)
    assert breaker.circuit(2) is Circuit.CLOSED
    fails(breaker, 3, 1)
    assert breaker.circuit(3) is Circuit.OPEN
    assert breaker.why == "failed 3 times in a row"
    assert breaker.enter(3) is None


def test_it_opens_where_half_of_the_calls_of_late_fail() -> None:
    """No failure follows another, and yet every second call fails."""
    breaker = Breaker()
    for second in range(FEWEST - 1):
        (works if second % 2 else lambda b, now: fails(b, now, 1))(breaker, second)
        assert breaker.circuit(second) is Circuit.CLOSED
    works(breaker, FEWEST)
    assert breaker.circuit(FEWEST) is Circuit.CLOSED  # a success never opens it
    fails(breaker, FEWEST, 1)
    assert breaker.circuit(FEWEST) is Circuit.OPEN
    assert breaker.why == "failed 6 of its last 11 calls"


def test_what_is_long_ago_does_not_count() -> None:
    """The same failures, spread over a longer time, are no outage."""
    breaker, now = Breaker(), 0.0
    for _ in range(FEWEST):
        fails(breaker, now, 1)
        works(breaker, now)
        now += WINDOW_SECONDS / 4
        assert breaker.circuit(now) is Circuit.CLOSED


def test_failures_of_long_ago_are_not_added_to_those_of_late() -> None:
    """After a bad time that did not open it, it takes half of the calls since to do so."""
    breaker = Breaker()
    for _ in range(FEWEST // 2 - 1):
        fails(breaker, 0, 1)
        works(breaker, 0)
    now = WINDOW_SECONDS
    for _ in range(FEWEST):
        works(breaker, now)
    fails(breaker, now, 2)
    assert breaker.circuit(now) is Circuit.CLOSED


def test_calls_that_say_nothing_change_nothing() -> None:
    """A caller that leaves neither breaks a row of failures nor adds to it."""
    breaker = Breaker()
    fails(breaker, 0, IN_A_ROW - 1)
    breaker.leave(entered(breaker, 0), 0, success=None)
    assert breaker.circuit(0) is Circuit.CLOSED
    fails(breaker, 0, 1)
    assert breaker.circuit(0) is Circuit.OPEN


def test_one_probe_after_the_cooldown() -> None:
    """Half open, one call is let through; its success closes the circuit."""
    breaker = opened()
    assert breaker.enter(FIRST_COOLDOWN_SECONDS - 0.01) is None
    now = FIRST_COOLDOWN_SECONDS
    assert breaker.circuit(now) is Circuit.HALF_OPEN
    probe = entered(breaker, now)
    assert breaker.enter(now) is None
    breaker.leave(probe, now, success=True)
    assert breaker.circuit(now) is Circuit.CLOSED
    assert breaker.enter(now)


def test_cooldowns_double_to_a_limit() -> None:
    """As long as every probe fails, each pause is twice as long as the one before."""
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(10):
        pauses.append(breaker.ready_in(now))
        now += pauses[-1]
        fails(breaker, now, 1)
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == LONGEST_COOLDOWN_SECONDS
    assert breaker.why == "failed again when it was tried after a pause"


def test_one_that_flaps_is_not_forgiven() -> None:
    """Who fails soon after coming back pauses for longer; who stayed well for a while does not."""
    breaker, now = opened(), FIRST_COOLDOWN_SECONDS
    works(breaker, now)
    fails(breaker, now + 1)
    assert breaker.ready_in(now + 1) == 2 * FIRST_COOLDOWN_SECONDS
    now += 1 + breaker.ready_in(now + 1)
    works(breaker, now)
    now += WELL_SECONDS
    fails(breaker, now)
    assert breaker.ready_in(now) == FIRST_COOLDOWN_SECONDS


def test_a_probe_that_is_given_back_or_lost() -> None:
    """The next call takes its place: at once, or when it is not waited for any longer."""
    breaker, now = opened(), FIRST_COOLDOWN_SECONDS
    breaker.leave(entered(breaker, now), now, success=None)
    lost = entered(breaker, now)
    assert breaker.enter(now + PROBE_SECONDS - 0.01) is None
    now += PROBE_SECONDS
    probe = entered(breaker, now)
    breaker.leave(lost, now, success=True)  # it comes too late to count
    assert breaker.circuit(now) is Circuit.HALF_OPEN
    breaker.leave(probe, now, success=False)
    assert breaker.circuit(now) is Circuit.OPEN


def test_calls_under_way_when_it_opens() -> None:
    """However many of them fail, or succeed, they neither lengthen the pause nor end it."""
    breaker = Breaker()
    under_way = [entered(breaker, 0) for _ in range(32)]
    for ticket in under_way[:16]:
        breaker.leave(ticket, 0, success=False)
    assert breaker.ready_in(0) == FIRST_COOLDOWN_SECONDS
    now = FIRST_COOLDOWN_SECONDS
    works(breaker, now)
    for ticket in under_way[16:]:
        breaker.leave(ticket, now, success=False)
    assert breaker.circuit(now) is Circuit.CLOSED


def test_an_outage_of_many_requests() -> None:
    """Of a request every second for ten minutes, few reach what is dead."""
    breaker, tried = Breaker(), 0
    for now in range(600):
        if ticket := breaker.enter(now):
            tried += 1
            breaker.leave(ticket, now, success=False)
    assert tried <= 10


def test_news_that_it_is_well() -> None:
    """It may be tried at once, and no more than tried; the next pause is longer all the same."""
    breaker = opened()
    breaker.hurry(1)
    assert breaker.circuit(1) is Circuit.HALF_OPEN
    fails(breaker, 1, 1)
    assert breaker.ready_in(1) == 2 * FIRST_COOLDOWN_SECONDS


class Calls(RuleBasedStateMachine):
    """Any calls, ending in any order at any time, or never."""

    tickets = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker()
        self.now = 0.0
        self.ready_at = 0.0
        """Before this nothing may be let through."""
        self.cooldown = 0.0
        self.well_since: float | None = None
        self.probe: Ticket | None = None
        self.probe_since = 0.0

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tickets)
    def enter(self) -> Ticket | None:
        half_open = self.breaker.circuit(self.now) is Circuit.HALF_OPEN
        ready_in = self.breaker.ready_in(self.now)
        ticket = self.breaker.enter(self.now)
        assert (ticket is not None) == (ready_in == 0)
        if ticket is None:
            return None
        assert self.now >= self.ready_at, "an open circuit let a call through"
        if half_open:
            assert self.probe is None or self.now >= self.probe_since + PROBE_SECONDS, "two probes"
            self.probe, self.probe_since = ticket, self.now
        return ticket

    @rule(ticket=consumes(tickets), success=st.sampled_from([True, False, False, False, None]))
    def leave(self, ticket: Ticket | None, success: bool | None) -> None:
        if ticket is None:
            return
        was = self.breaker.circuit(self.now)
        self.breaker.leave(ticket, self.now, success)
        became = self.breaker.circuit(self.now)
        if became is Circuit.OPEN and (was is not Circuit.OPEN or ticket is self.probe):
            assert success is False
            self.opened()
        elif became is Circuit.CLOSED and was is not Circuit.CLOSED:
            assert success is True
            assert ticket is self.probe
            self.well_since = self.now
        if ticket is self.probe or became is not was:
            self.probe = None

    def opened(self) -> None:
        cooldown = self.breaker.ready_in(self.now)
        well = 0.0 if self.well_since is None else self.now - self.well_since
        if well < max(WELL_SECONDS, self.cooldown):
            assert cooldown >= min(2 * self.cooldown, LONGEST_COOLDOWN_SECONDS) - 1e-6
        assert FIRST_COOLDOWN_SECONDS - 1e-6 <= cooldown <= LONGEST_COOLDOWN_SECONDS + 1e-6
        self.cooldown, self.well_since, self.ready_at = cooldown, None, self.now + cooldown - 1e-6

    @precondition(lambda self: self.breaker.circuit(self.now) is Circuit.OPEN)
    @rule()
    def hurry(self) -> None:
        self.breaker.hurry(self.now)
        assert self.breaker.circuit(self.now) is Circuit.HALF_OPEN
        self.ready_at = self.now

    @invariant()
    def it_is_ready_some_day(self) -> None:
        assert 0 <= self.breaker.ready_in(self.now) <= LONGEST_COOLDOWN_SECONDS + 1e-6


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
