"""The ledger: what is booked never falls below what was spent, and no limit is ever passed."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.errors import BudgetExceededError
from semroute_service.ledger import Ledger, Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    """A clock that a test sets."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "new" / "ledger.sqlite3")
    yield ledger
    ledger.close()


def reserve(
    ledger: Ledger, amount: int, limit: int | None = None, profile: str = "p"
) -> Reservation:
    return ledger.reserve(profile, "tenant", "model", amount, limit)


def test_a_reservation_counts_in_full_until_it_is_settled(ledger: Ledger) -> None:
    """Put aside is spent; what the settlement leaves over is free again, what it adds is spent."""
    first, second = reserve(ledger, 60, 100), reserve(ledger, 40, 100)
    assert ledger.spent("p") == 100
    ledger.settle(first, 10)
    assert ledger.spent("p") == 50
    ledger.settle(second, 90)
    assert ledger.spent("p") == 100


def test_no_reservation_passes_the_limit(ledger: Ledger) -> None:
    """The last nano-dollar may be reserved and not one more; a refusal books nothing."""
    reserve(ledger, 99, 100)
    with pytest.raises(BudgetExceededError) as caught:
        reserve(ledger, 2, 100)
    assert ledger.spent("p") == 99
    reserve(ledger, 1, 100)
    assert ledger.spent("p") == 100
    assert caught.value.subject == "profile:p"
    assert "monthly limit" in str(caught.value)


def test_what_is_free_always_passes(ledger: Ledger) -> None:
    """An exhausted month does not stop what costs nothing, and no limit stops nothing."""
    reserve(ledger, 500)
    reserve(ledger, 0, 100)
    with pytest.raises(BudgetExceededError):
        reserve(ledger, 1, 100)


def test_a_settled_entry_never_changes(ledger: Ledger) -> None:
    """The first settlement stands, also against a second that says less or more."""
    reservation = reserve(ledger, 50)
    ledger.settle(reservation, 20)
    ledger.settle(reservation, 0)
    ledger.settle(reservation, 900)
    assert ledger.spent("p") == 20


def test_a_settlement_of_nothing_books_nothing(ledger: Ledger) -> None:
    """A reservation that the ledger never made changes nothing."""
    ledger.settle(Reservation("unknown", 5), 5)
    assert ledger.spent("p") == 0


def test_profiles_have_budgets_of_their_own(ledger: Ledger) -> None:
    """What one profile spends is no other's."""
    reserve(ledger, 100, 100, "a")
    reserve(ledger, 100, 100, "b")
    assert (ledger.spent("a"), ledger.spent("b"), ledger.spent("c")) == (100, 100, 0)


def test_negative_amounts_are_refused(ledger: Ledger) -> None:
    """Nobody earns by reserving or settling less than nothing, and the ledger still works."""
    reservation = reserve(ledger, 5)
    with pytest.raises(sqlite3.IntegrityError):
        reserve(ledger, -5)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.settle(reservation, -5)
    assert ledger.spent("p") == 5


def test_months() -> None:
    """A new month starts at nothing; what is settled in it for the old one stays in the old."""
    clock = Clock("2026-01-31T23:59:59")
    ledger = Ledger(now=clock)
    late = reserve(ledger, 100, 100)
    clock.set("2026-02-01T00:00:00")
    assert ledger.spent("p") == 0
    ledger.settle(late, 70)
    reserve(ledger, 100, 100)
    assert ledger.spent("p") == 100
    clock.set("2026-01-31T23:59:59")
    assert ledger.spent("p") == 70
    ledger.close()


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2026-01-31T23:59:30", 30),
        ("2026-12-31T23:00:00", 3600),
        ("2026-02-01T00:00:00", 28 * 86_400),
        ("2028-02-29T12:00:00", 43_200),
    ],
)
def test_the_wait_lasts_until_the_next_month(now: str, seconds: float) -> None:
    """A refused caller is told how long the month, or the year, still lasts."""
    ledger = Ledger(now=Clock(now))
    assert ledger.exceeded("p").retry_after == pytest.approx(seconds, abs=1)
    ledger.close()


RESERVE_AND_WAIT = """
import sys, time, pathlib
from semroute_service.ledger import Ledger
ledger = Ledger(pathlib.Path(sys.argv[1]))
ledger.settle(ledger.reserve("p", "", "m", 50, 100), 10)
print(ledger.reserve("p", "", "m", 70, 100).id, flush=True)
time.sleep(600)
"""


def test_a_crash_forgets_nothing(tmp_path: Path) -> None:
    """After kill -9 before a settlement every entry counts, and the open one can be settled."""
    path = tmp_path / "ledger.sqlite3"
    command = [sys.executable, "-c", RESERVE_AND_WAIT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        reservation = Reservation(child.stdout.readline().strip(), 70)
        os.kill(child.pid, signal.SIGKILL)
    ledger = Ledger(path)
    assert ledger.spent("p") == 80
    with pytest.raises(BudgetExceededError):
        reserve(ledger, 21, 100)
    reserve(ledger, 20, 100)
    ledger.settle(reservation, 30)
    assert ledger.spent("p") == 60
    ledger.close()


def test_reopening(tmp_path: Path) -> None:
    """What is closed and opened again holds the same, whoever opens it."""
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    reservation = reserve(ledger, 50)
    ledger.close()
    ledger = Ledger(path)
    assert ledger.spent("p") == 50
    ledger.settle(reservation, 5)
    assert ledger.spent("p") == 5
    ledger.close()


@pytest.mark.parametrize("ledgers", [1, 4], ids=["one ledger", "four on one file"])
def test_threads_never_pass_the_limit(tmp_path: Path, ledgers: int) -> None:
    """However many ask at once, just as many get a reservation as the limit bears."""
    opened = [Ledger(tmp_path / "ledger.sqlite3") for _ in range(ledgers)]
    together = threading.Barrier(8)

    def ask(thread: int) -> int:
        ledger = opened[thread % ledgers]
        together.wait()
        granted = 0
        for _ in range(15):
            try:
                reserve(ledger, 7, 500)
            except BudgetExceededError:
                continue
            granted += 1
        return granted

    with ThreadPoolExecutor(8) as threads:
        granted = sum(threads.map(ask, range(8)))
    assert granted == 500 // 7
    assert {ledger.spent("p") for ledger in opened} == {granted * 7}
    for ledger in opened:
        ledger.close()


class Entry(NamedTuple):
    profile: str
    month: int
    amount: int
    settled: bool = False


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "month"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 60),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_it_agrees_with_plain_arithmetic(steps: list[tuple[str, str, int, int]]) -> None:
    """After any series of events the ledger says what a list of entries and a sum would say."""
    clock, month, limit = Clock("2026-01-15T00:00:00"), 1, 100
    ledger = Ledger(now=clock)
    made: list[Reservation] = []
    entries: list[Entry] = []

    def booked(profile: str) -> int:
        return sum(e.amount for e in entries if (e.profile, e.month) == (profile, month))

    for step, profile, amount, which in steps:
        if step == "month":
            month = month % 12 + 1
            clock.set(f"2026-{month:02}-15T00:00:00")
        elif step == "reserve" and amount and booked(profile) + amount > limit:
            with pytest.raises(BudgetExceededError):
                reserve(ledger, amount, limit, profile)
        elif step == "reserve":
            made.append(reserve(ledger, amount, limit, profile))
            entries.append(Entry(profile, month, amount))
        elif which < len(made):
            ledger.settle(made[which], amount)
            if not entries[which].settled:
                entries[which] = Entry(entries[which].profile, entries[which].month, amount, True)
        assert [ledger.spent(name) for name in ("a", "b")] == [booked("a"), booked("b")]
    ledger.close()


@pytest.mark.parametrize("where", ["file", "memory"])
def test_what_is_known_is_forgotten_when_the_books_change(tmp_path: Path, where: str) -> None:
    """The last sum stands in for a reading only until anybody writes, or the month turns."""
    clock = Clock("2026-05-31T23:59:59")
    ledger = Ledger(tmp_path / "ledger.sqlite3" if where == "file" else None, clock)
    assert ledger.spent_as_known("p") is None
    assert ledger.spent("p") == ledger.spent_as_known("p") == 0
    first = reserve(ledger, 60)
    assert ledger.spent_as_known("p") is None
    assert ledger.spent("p") == ledger.spent_as_known("p") == 60
    ledger.settle(first, 10)
    assert ledger.spent_as_known("p") is None
    assert ledger.spent("p") == ledger.spent_as_known("p") == 10
    assert ledger.spent_as_known("q") is None
    clock.set("2026-06-01T00:00:00")
    assert ledger.spent_as_known("p") is None
    assert ledger.spent("p") == ledger.spent_as_known("p") == 0
    ledger.close()


def test_another_servers_booking_is_seen(tmp_path: Path) -> None:
    """Two servers with one home share the books: what one spends the other does not overlook."""
    one, other = Ledger(tmp_path / "l.sqlite3"), Ledger(tmp_path / "l.sqlite3")
    assert one.spent("p") == one.spent_as_known("p") == 0
    reserve(other, 70)
    assert one.spent_as_known("p") is None
    assert one.spent("p") == one.spent_as_known("p") == 70
    one.close()
    other.close()
