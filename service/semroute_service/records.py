"""What became of requests: counted for operators and, where they ask for it, logged one by one.

No prompt, no answer and no session id is in a record.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from semroute_service.errors import SemrouteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from semroute_service.decision import Attempt, Decision, Finish
    from semroute_service.governance import Case
    from semroute_service.profile import Profile
    from semroute_service.sessions import Session

log = logging.getLogger("semroute.routing")


@dataclass(slots=True, eq=False)
class Record:
    """One request on its way: how far it came is what is not None at its end."""

    completes: bool
    session: Session | None = None
    case: Case | None = None
    decision: Decision | None = None
    attempts: Sequence[Attempt] = ()
    finish: Finish | None = None
    error: Exception | None = None
    arrived_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)

    @property
    def fell_back(self) -> bool:
        """True where another model answered than the first that was tried."""
        return self.finish is not None and self.finish.model is not self.attempts[0].model

    @property
    def cost(self) -> int:
        """Of all attempts, in nano-USD."""
        return sum(attempt.cost for attempt in self.attempts)


class Records:
    """The server's counts since its start. Lives on one event loop.

    With ``debug`` every request writes a JSON object on a line of the log ``semroute.routing``.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self.requests = 0
        self.errors = 0
        self.fallbacks = 0
        self._debug = debug

    @contextlib.contextmanager
    def keep(self, *records: Record) -> Iterator[None]:
        """Count ``records``, and once it is known what became of them note that, too.

        An error that ends the block is that of every record without one of its own.
        """
        self.requests += len(records)
        try:
            yield
        except Exception as error:
            for record in records:
                record.error = record.error or error
            raise
        finally:
            for record in records:
                self._note(record)

    def refuse(self) -> None:
        """Count a request that cannot be read, so that nobody routes it."""
        self.requests += 1
        self.errors += 1

    def _note(self, record: Record) -> None:
        failed = record.error is not None
        self.errors += failed
        self.fallbacks += record.fell_back
        if record.session:
            record.session.errors += failed
            record.session.cost += record.cost
        if self._debug:
            log.info("%s", json.dumps(_as_dict(record), ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Status:
    """What a server does. ``uptime`` is in seconds."""

    active: Profile
    utterances_revision: str
    started_at: datetime
    uptime: float
    sessions: int
    requests: int
    errors: int
    fallbacks: int
    version: str


def _as_dict(record: Record) -> dict[str, Any]:
    """Under the names of the contract where it has them."""
    return {
        "at": record.arrived_at.isoformat(),
        "rpc": "Complete" if record.completes else "Decide",
        "outcome": _outcome(record),
        "latency_ms": _ms(time.perf_counter() - record.started),
        **(_decided(record.decision) if record.decision else {}),
        **(_answered(record) if record.completes else {}),
        **(_failed(record.error) if record.error else {}),
    }


def _outcome(record: Record) -> str:
    if record.error:
        return "failed"
    if record.finish:
        return "answered"
    return "cancelled" if record.completes or not record.decision else "decided"


def _decided(decision: Decision) -> dict[str, Any]:
    verdict, chosen = decision.classification, decision.chosen.model
    return {
        "id": decision.id,
        "task": verdict.task,
        "tier": verdict.tier.word if verdict.tier else None,
        "confidence": round(verdict.confidence, 4),
        "route": decision.route,
        "profile": decision.profile.name,
        "profile_revision": decision.profile.revision,
        "primary_model": decision.primary_model,
        "model": chosen.name,
        "backend": chosen.backend.name,
        "provider": chosen.backend.provider.id,
        "local": chosen.local,
        "fallback_chain": decision.fallback_chain,
        "fallback_depth": decision.fallback_depth,
        "pinned": decision.pinned,
        "pin_moved_from": decision.pin_moved_from,
        "reason": decision.reason,
        "decided_ms": _ms(decision.elapsed.total),
    }


def _answered(record: Record) -> dict[str, Any]:
    return {
        "answered_by": record.finish.model.name if record.finish else None,
        "finish_reason": record.finish.reason if record.finish else None,
        "cost_nano_usd": record.cost,
        "attempts": [_attempt(attempt) for attempt in record.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    first = attempt.time_to_first_token
    return {
        "model": attempt.model.name,
        "backend": attempt.model.backend.name,
        "started_at": attempt.started_at.isoformat(),
        "outcome": attempt.outcome.value,
        "error_class": attempt.error_class,
        "duration_ms": _ms(attempt.duration),
        "first_token_ms": None if first is None else _ms(first),
        "usage": asdict(attempt.usage),
        "cost_nano_usd": attempt.cost,
    }


def _failed(error: Exception) -> dict[str, Any]:
    """A foreign error's text may hold anything, so its name alone is told."""
    told = {"error": type(error).__name__}
    return {**told, "message": str(error)} if isinstance(error, SemrouteError) else told


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
