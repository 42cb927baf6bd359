"""The attempts at one request: each admitted by governance, paid for, timed and on the record.

What an attempt does between its beginning and its end is its caller's business: streaming an
answer, or fetching vectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from semroute_service import governance
from semroute_service.backends import BackendError
from semroute_service.decision import Attempt, Delta, ErrorClass, FinishReason, Outcome, Usage
from semroute_service.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.backends import End
    from semroute_service.backends.availability import Call
    from semroute_service.decision import Candidate
    from semroute_service.governance import Case
    from semroute_service.ledger import Ledger, Reservation
    from semroute_service.profile import Model
    from semroute_service.screening import Screening

_UNBILLED = frozenset(
    {
        ErrorClass.CALLER_INVALID_REQUEST,
        ErrorClass.CALLER_CONTEXT_LENGTH,
        ErrorClass.POLICY_CONTENT_FILTER,
        ErrorClass.POLICY_DENIED,
        ErrorClass.PROVIDER_CONNECT,
        ErrorClass.PROVIDER_RATE_LIMIT,
        ErrorClass.PROVIDER_UNAVAILABLE,
        ErrorClass.PROVIDER_CREDENTIALS,
        ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    }
)
"""Failures before the first delta for which no upstream charges."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """One attempt under way. Times are of ``time.perf_counter``."""

    candidate: Candidate
    call: Call
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    received_bytes: int = 0
    end: End | None = None
    error: BackendError | None = None
    used: Usage | None = None
    """What the backend has reported so far, where it is asked part by part."""
    reservation: Reservation | None = None
    admitted: bool = False
    """False where the backend cannot have been asked yet."""
    committed: int = 0
    """What it may cost, in nano-USD, while it is not known what it did cost."""
    beaten: bool = False
    """True where another attempt, made beside this one, was faster."""
    hurried: bool = False
    """True where the caller's deadline left it less time than a slow backend may need."""

    @property
    def model(self) -> Model:
        return self.candidate.model

    @property
    def began(self) -> bool:
        return self.first_token is not None

    def take(self, delta: Delta) -> None:
        """Note that ``delta`` has come."""
        if self.first_token is None:
            self.first_token = time.perf_counter()
            self.call.first_token(self.first_token - self.started)
        self.received_bytes += _size(delta.text) + _size(delta.reasoning)
        for piece in delta.tool_calls:
            self.received_bytes += _size(piece.name) + _size(piece.arguments)

    def finish(self, end: End) -> None:
        """Note how the backend said that the answer ended."""
        if end.reason is FinishReason.CONTENT_FILTER and not self.began:
            raise BackendError(ErrorClass.POLICY_CONTENT_FILTER, "filtered before the first token")
        self.end = end


@dataclass
class Attempts:
    """Those of one request. ``made`` are the ones that have ended, in the order of their ends."""

    case: Case
    screening: Screening
    ledger: Ledger
    made: list[Attempt] = field(default_factory=list)
    budget_error: BudgetExceededError | None = None
    _running: list[Run] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """What those that have ended cost together, in nano-USD."""
        return sum(attempt.cost for attempt in self.made)

    @property
    def committed(self) -> int:
        """The same, and the most that those under way may cost."""
        return self.cost + sum(run.committed for run in self._running)

    @contextlib.contextmanager
    def keep(self, run: Run) -> Iterator[None]:
        """One attempt: whatever happens inside, it is recorded and settled.

        A ``BackendError`` ends it as failed, and is left in ``run.error``.
        """
        error_class: ErrorClass | None = ErrorClass.SEMROUTE_INTERNAL
        self._running.append(run)
        try:
            yield
            error_class = None
        except BackendError as error:
            run.end, run.error = None, _before_or_after(error, run.began)
            error_class = run.error.error_class
            _log.info("%s failed: %s (%s)", run.model.name, error_class, error.detail)
        except (asyncio.CancelledError, GeneratorExit):
            left = ErrorClass.SEMROUTE_HEDGED if run.beaten else ErrorClass.CALLER_CANCELLED
            error_class = left
            raise
        finally:
            self._running.remove(run)
            self._record(run, error_class)

    async def admit(self, run: Run) -> None:
        """Ask governance, with the facts as they are now, and put the money aside.

        Raises ``BackendError`` of the class POLICY_DENIED.
        """
        await self._admit(run)
        run.admitted = True

    async def _admit(self, run: Run) -> None:
        ruling = await self.screening.again(run.candidate, self.case)
        if ruling.rule == governance.monthly_limit.__name__:
            self.budget_error = self.ledger.exceeded(self.case.profile.name)
        if not ruling.admitted:
            raise BackendError(ErrorClass.POLICY_DENIED, ruling.reason)
        if not ruling.estimated_cost:
            return
        if not self._affords(ruling.estimated_cost):
            raise BackendError(ErrorClass.POLICY_DENIED, "earlier attempts have used up the limit")
        run.committed = ruling.estimated_cost
        try:
            run.reservation = await self._reserve(run.model, ruling.estimated_cost)
        except BudgetExceededError as error:
            self.budget_error = error
            raise BackendError(ErrorClass.POLICY_DENIED, str(error)) from None

    def _affords(self, amount: int) -> bool:
        """Whether ``amount`` still fits into the limit of the request."""
        limit = self.case.max_cost
        return limit is None or self.committed + amount <= limit

    async def _reserve(self, model: Model, amount: int) -> Reservation:
        reserving = asyncio.get_running_loop().run_in_executor(
            self.ledger.thread,
            self.ledger.reserve,
            self.case.profile.name,
            self.case.caller.tenant,
            model.name,
            amount,
            self.case.profile.limits.monthly,
        )
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(self._give_back)  # the thread goes on without its caller
            raise

    def _give_back(self, reserving: asyncio.Future[Reservation]) -> None:
        if not reserving.cancelled() and not reserving.exception():
            self.ledger.settle_soon(reserving.result(), 0)

    def _record(self, run: Run, error_class: ErrorClass | None) -> None:
        now = time.perf_counter()
        usage = self._usage(run, error_class)
        price = run.model.effective_price
        cost = price.cost(usage.prompt_tokens, usage.completion_tokens) if price else 0
        first = run.first_token
        self.made.append(
            Attempt(
                model=run.model,
                started_at=run.started_at,
                outcome=_outcome(error_class),
                duration=now - run.started,
                error_class=error_class,
                time_to_first_token=None if first is None else first - run.started,
                usage=usage,
                cost=cost,
            )
        )
        if error_class is None:
            run.call.succeeded(usage.completion_tokens, now - first if first else 0.0)
        elif run.error is None or run.hurried or not error_class.is_providers:
            if run.beaten and not run.began:
                run.call.silent_for(now - run.started)
            run.call.let_go()
        else:
            run.call.failed(run.error)
        if run.reservation:  # not awaited: a caller that leaves must not stop the settlement
            self.ledger.settle_soon(run.reservation, cost)

    def _usage(self, run: Run, error_class: ErrorClass | None) -> Usage:
        """What the backend reported, completed by an estimate where that is not of the whole;
        nothing where nothing can have been used."""
        told = (run.end.usage if run.end else run.used) or Usage()
        if not run.admitted or (not run.began and error_class in _UNBILLED):
            return told
        sent = told.prompt_tokens if run.end else 0
        written = told.completion_tokens or not run.received_bytes
        if sent and written and not told.estimated:
            return told
        return replace(
            told,
            prompt_tokens=sent or max(told.prompt_tokens, self.case.prompt_tokens),
            completion_tokens=max(told.completion_tokens, math.ceil(run.received_bytes / 3)),
            estimated=True,
        )


def _size(text: str) -> int:
    """Bytes, without encoding what is plainly ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def _outcome(error_class: ErrorClass | None) -> Outcome:
    if error_class is None:
        return Outcome.SUCCEEDED
    gone = {ErrorClass.CALLER_CANCELLED, ErrorClass.SEMROUTE_HEDGED}
    return Outcome.CANCELLED if error_class in gone else Outcome.FAILED


def _before_or_after(error: BackendError, began: bool) -> BackendError:
    """A break before the first delta is a broken connection; after it, an interruption."""
    if error.error_class not in {ErrorClass.PROVIDER_CONNECT, ErrorClass.PROVIDER_INTERRUPTED}:
        return error
    kind = ErrorClass.PROVIDER_INTERRUPTED if began else ErrorClass.PROVIDER_CONNECT
    return BackendError(kind, error.detail, error.retry_after)
