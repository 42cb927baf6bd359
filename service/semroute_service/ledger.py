"""Money: reserved before a call, settled after it.

Invariants, whatever happens in between:

- what is booked never falls below what was spent: a reservation counts in full until it is
  settled, also after a crash;
- no reservation is made that would take a month over its limit;
- a settled entry never changes again.

Amounts are integers in nano-USD. The months are UTC.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import sqlite3
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semroute_service.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT PRIMARY KEY,
    month TEXT NOT NULL,
    profile TEXT NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    settled INTEGER CHECK (settled >= 0)
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_month ON entries (month, profile);
"""


def _tell(settled: Future[None]) -> None:
    """A settlement that failed leaves its reservation open, which counts in full."""
    if error := settled.exception():
        _log.error("a reservation could not be settled and stays in full", exc_info=error)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money put aside for one attempt."""

    id: str
    amount: int


class Ledger:
    """A SQLite file, or memory where ``path`` is None. Safe to call from several threads.

    Every call is a few short statements in one transaction. A server runs them in ``thread``,
    which ``close`` lets finish: what was handed to it is in the books.
    """

    def __init__(
        self,
        path: Path | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._now = now
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._writes = 0
        self._watch = (
            sqlite3.connect(path, isolation_level=None, check_same_thread=False) if path else None
        )
        self._known: dict[tuple[str, str], tuple[int, int]] = {}
        """By month and profile: the version of the books, and what they say was spent."""

    def spent(self, profile: str) -> int:
        """What this month has cost ``profile``, open reservations included."""
        key, version = (self._month(), profile), self._version()
        with self._transaction():
            spent = self._spent(profile)
        self._known = {k: v for k, v in self._known.items() if k[0] == key[0]}
        self._known[key] = (version, spent)
        return spent

    def spent_as_known(self, profile: str) -> int | None:
        """The same without waiting for anybody; None where the books have changed since they were
        last read, by this process or another. For the event loop's thread."""
        known = self._known.get((self._month(), profile))
        return known[1] if known and known[0] == self._version() else None

    def reserve(
        self, profile: str, tenant: str, model: str, amount: int, limit: int | None
    ) -> Reservation:
        """Put ``amount`` aside; raises ``BudgetExceededError`` where the month cannot bear it."""
        with self._writing():
            spent = self._spent(profile)
            if limit is not None and amount and spent + amount > limit:
                raise self.exceeded(profile)
            reservation = Reservation(uuid.uuid4().hex, amount)
            self._db.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (reservation.id, self._month(), profile, tenant, model, amount),
            )
            return reservation

    def settle(self, reservation: Reservation, amount: int) -> None:
        """Book what the attempt really cost; a second settlement changes nothing."""
        with self._writing():
            self._db.execute(
                "UPDATE entries SET settled = ? WHERE id = ? AND settled IS NULL",
                (amount, reservation.id),
            )

    def settle_soon(self, reservation: Reservation, amount: int) -> None:
        """``settle`` in ``thread``, for whoever cannot wait."""
        self.thread.submit(self.settle, reservation, amount).add_done_callback(_tell)

    def exceeded(self, profile: str) -> BudgetExceededError:
        """The error that says so, with the time until the next month."""
        now = self._now()
        turn = (now.replace(day=1, hour=0, minute=0, second=0) + datetime.timedelta(32)).replace(
            day=1
        )
        return BudgetExceededError(
            f"profile:{profile}",
            f'the monthly limit of profile "{profile}" is reached',
            (turn - now).total_seconds(),
        )

    def close(self) -> None:
        """Finish what ``thread`` was given, then close the file."""
        self.thread.shutdown(wait=True)
        self._db.close()
        if self._watch:
            self._watch.close()

    def _version(self) -> int:
        """Another one whenever anything was committed; a connection of its own sees all others."""
        if self._watch is None:
            return self._writes
        row = self._watch.execute("PRAGMA data_version").fetchone()
        return int(row[0])

    def _month(self) -> str:
        return f"{self._now():%Y-%m}"

    def _spent(self, profile: str) -> int:
        row = self._db.execute(
            "SELECT COALESCE(SUM(COALESCE(settled, reserved)), 0) FROM entries"
            " WHERE month = ? AND profile = ?",
            (self._month(), profile),
        ).fetchone()
        return int(row[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._transaction():
            self._writes += 1
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back after some errors
                    self._db.execute("ROLLBACK")
                raise
