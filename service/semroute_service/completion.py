"""One answer: attempts in order, until one is whole.

Until the first delta nothing is promised, and a failure moves on to the next candidate. After it
the answer is never continued silently by another model: it ends in an error or, where the caller
allowed it, begins again after a ``Restart``. ``Finish`` comes only from a backend that said how
its answer ended. Governance is asked again before every attempt, money is reserved before it and
settled after it, also when the caller leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from semroute_service import governance
from semroute_service.backends import BackendError, ChatRequest, End
from semroute_service.decision import (
    Attempt,
    Delta,
    ErrorClass,
    Finish,
    FinishReason,
    Outcome,
    Restart,
    Usage,
)
from semroute_service.errors import (
    BudgetExceededError,
    ContentFilteredError,
    ContextLengthError,
    CredentialsError,
    SemrouteError,
    StreamInterruptedError,
    UnavailableError,
    UpstreamRequestError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from semroute_service.backends import BackendPool, Event
    from semroute_service.decision import Candidate, Decision
    from semroute_service.ledger import Ledger, Reservation
    from semroute_service.profile import Model, Profile
    from semroute_service.query import Options, Query

CompletionEvent: TypeAlias = Delta | Attempt | Restart | Finish

_FIRST_BACKOFF_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 2.0
_RETRY_AFTER_SECONDS = 1.0
"""What a caller is told to wait where no upstream said better."""
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


@dataclass
class _Progress:
    """What one attempt has brought so far. Times are of ``time.perf_counter``."""

    model: Model
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    received_bytes: int = 0
    end: End | None = None
    error: BackendError | None = None

    def take(self, delta: Delta) -> None:
        if self.first_token is None:
            self.first_token = time.perf_counter()
        pieces = [delta.text, delta.reasoning, *(c.name + c.arguments for c in delta.tool_calls)]
        self.received_bytes += sum(len(piece.encode()) for piece in pieces)

    @property
    def began(self) -> bool:
        return self.first_token is not None


@dataclass
class Completion:
    """Answers one decided query. Use ``events`` once."""

    decision: Decision
    query: Query
    options: Options
    profile: Profile
    screen_again: Callable[[Candidate], Awaitable[Candidate]]
    max_cost: int | None
    backends: BackendPool
    ledger: Ledger
    attempts: list[Attempt] = field(default_factory=list)
    _budget_error: BudgetExceededError | None = None
    _retry_after: float | None = None

    async def events(self) -> AsyncGenerator[CompletionEvent, None]:
        """Deltas and failed attempts, then a ``Finish``; raises ``SemrouteError`` otherwise."""
        broken: Candidate | None = None  # the one whose unfinished answer the caller has
        for candidate in self.decision.admitted:
            for retry in range(self.profile.behavior.max_retries + 1):
                progress = _Progress(candidate.model)
                restart = broken is not None
                async with contextlib.aclosing(self._attempt(candidate, progress)) as deltas:
                    async for delta in deltas:
                        if restart:
                            yield _restart(candidate)
                            restart = False
                        progress.take(delta)
                        yield delta
                if progress.end:
                    if restart:
                        yield _restart(candidate)
                    yield self._finish(progress.end)
                    return
                yield self.attempts[-1]
                assert progress.error is not None
                if progress.began and not self.options.allow_restart:
                    raise self._interrupted(candidate)
                if progress.error.error_class.is_final:
                    raise self._final(progress.error.error_class)
                if progress.began:
                    broken = candidate
                    break
                if not await self._may_retry(progress.error, retry):
                    break
        raise self._interrupted(broken) if broken else self._exhausted()

    async def _attempt(
        self, candidate: Candidate, progress: _Progress
    ) -> AsyncGenerator[Delta, None]:
        """One call. Records it in ``attempts``, settles it, and leaves its end or its error in
        ``progress``."""
        reservation: Reservation | None = None
        outcome = Outcome.FAILED
        error_class: ErrorClass | None = ErrorClass.SEMROUTE_INTERNAL
        try:
            reservation = await self._admit(candidate)
            request = ChatRequest(candidate.model, self.query.messages, self._options(candidate))
            async with contextlib.aclosing(self.backends.stream(request)) as stream:
                while progress.end is None:
                    event = await self._next(stream)
                    if isinstance(event, End):
                        progress.end = self._checked(event, progress)
                    elif event:
                        yield event
            outcome, error_class = Outcome.SUCCEEDED, None
        except BackendError as error:
            progress.end = None
            progress.error = _before_or_after(error, progress.began)
            outcome, error_class = Outcome.FAILED, progress.error.error_class
            self._retry_after = error.retry_after or self._retry_after
            _log.info("%s failed: %s (%s)", candidate.model.name, error_class, error.detail)
        except (asyncio.CancelledError, GeneratorExit):
            outcome, error_class = Outcome.CANCELLED, ErrorClass.CALLER_CANCELLED
            raise
        finally:
            self._record(progress, outcome, error_class, reservation)

    async def _admit(self, candidate: Candidate) -> Reservation | None:
        """Governance's word and the money, as they are now."""
        ruling = await self.screen_again(candidate)
        if ruling.rule == governance.monthly_limit.__name__:
            self._budget_error = self.ledger.exceeded(self.profile.name)
        if not ruling.admitted:
            raise BackendError(ErrorClass.POLICY_DENIED, ruling.reason)
        if not ruling.estimated_cost:
            return None
        if self.max_cost is not None and self._cost + ruling.estimated_cost > self.max_cost:
            raise BackendError(ErrorClass.POLICY_DENIED, "earlier attempts have used up the limit")
        try:
            return await self._reserve(candidate, ruling.estimated_cost)
        except BudgetExceededError as error:
            self._budget_error = error
            raise BackendError(ErrorClass.POLICY_DENIED, str(error)) from None

    async def _reserve(self, candidate: Candidate, amount: int) -> Reservation:
        reserving = asyncio.get_running_loop().run_in_executor(
            self.ledger.thread,
            self.ledger.reserve,
            self.profile.name,
            self.query.caller.tenant,
            candidate.model.name,
            amount,
            self.profile.limits.monthly,
        )
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(self._give_back)  # the thread goes on without its caller
            raise

    def _give_back(self, reserving: asyncio.Future[Reservation]) -> None:
        if not reserving.cancelled() and not reserving.exception():
            self._settle(reserving.result(), 0)

    def _options(self, candidate: Candidate) -> Options:
        """The caller's options; what they leave unset is filled in from the row, and an answer
        whose cost is limited is no longer than the limit pays for."""
        route = self.profile.routes[self.decision.route]
        sampling = self.options.sampling
        max_tokens = sampling.max_tokens or route.max_tokens or self._affordable(candidate)
        temperature = route.temperature if sampling.temperature is None else sampling.temperature
        sampling = replace(sampling, max_tokens=max_tokens, temperature=temperature)
        return replace(self.options, sampling=sampling)

    def _affordable(self, candidate: Candidate) -> int | None:
        """No longer than what was reserved pays for; None where money is not limited."""
        price = candidate.model.effective_price
        limited = self.max_cost is not None or self.profile.limits.monthly is not None
        if not limited or price is None or not price.output:
            return None
        if self.max_cost is None:
            return governance.DEFAULT_OUTPUT_TOKENS
        left = self.max_cost - self._cost - price.cost(self.query.prompt_tokens, 0)
        return max(1, min(governance.DEFAULT_OUTPUT_TOKENS, left * 1_000_000 // price.output))

    async def _next(self, stream: AsyncGenerator[Event, None]) -> Event:
        """The next event, within the profile's limit of silence."""
        try:
            async with asyncio.timeout(self.profile.behavior.first_token):
                return await anext(stream)
        except TimeoutError:
            limit = self.profile.behavior.first_token
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, f"silent for {limit} s") from None
        except StopAsyncIteration:
            raise BackendError(ErrorClass.PROVIDER_INTERRUPTED, "no end") from None

    @staticmethod
    def _checked(end: End, progress: _Progress) -> End:
        if end.reason is FinishReason.CONTENT_FILTER and not progress.began:
            raise BackendError(ErrorClass.POLICY_CONTENT_FILTER, "filtered before the first token")
        return end

    def _record(
        self,
        progress: _Progress,
        outcome: Outcome,
        error_class: ErrorClass | None,
        reservation: Reservation | None,
    ) -> None:
        usage = self._usage(progress, error_class)
        price = progress.model.effective_price
        cost = price.cost(usage.prompt_tokens, usage.completion_tokens) if price else 0
        first = progress.first_token
        self.attempts.append(
            Attempt(
                model=progress.model,
                started_at=progress.started_at,
                outcome=outcome,
                duration=time.perf_counter() - progress.started,
                error_class=error_class,
                time_to_first_token=None if first is None else first - progress.started,
                usage=usage,
                cost=cost,
            )
        )
        if reservation:
            self._settle(reservation, cost)

    def _settle(self, reservation: Reservation, cost: int) -> None:
        """Not awaited: a caller that leaves must not stop the settlement."""
        self.ledger.settle_soon(reservation, cost)

    @property
    def _cost(self) -> int:
        """What the attempts so far have cost together."""
        return sum(attempt.cost for attempt in self.attempts)

    def _usage(self, progress: _Progress, error_class: ErrorClass | None) -> Usage:
        """What the backend reported, or an estimate; nothing where nothing can have been used."""
        if progress.end and progress.end.usage:
            return progress.end.usage
        if not progress.began and error_class in _UNBILLED:
            return Usage()
        return Usage(self.query.prompt_tokens, -(-progress.received_bytes // 3), estimated=True)

    async def _may_retry(self, error: BackendError, retry: int) -> bool:
        """Wait out the back-off (exponential, full jitter) where another try may help."""
        if not error.error_class.is_retryable or retry >= self.profile.behavior.max_retries:
            return False
        if error.retry_after is not None and error.retry_after > _LONGEST_WAIT_SECONDS:
            return False
        backoff = random.uniform(0, _FIRST_BACKOFF_SECONDS * 2**retry)  # noqa: S311
        await asyncio.sleep(min(max(backoff, error.retry_after or 0), _LONGEST_WAIT_SECONDS))
        return True

    def _finish(self, end: End) -> Finish:
        last = self.attempts[-1]
        return Finish(end.reason, last.model, last.usage, self._cost, tuple(self.attempts))

    def _interrupted(self, candidate: Candidate) -> StreamInterruptedError:
        return StreamInterruptedError(
            f"the answer of {candidate.model.name} broke off; what has come is not whole",
            self.attempts,
        )

    def _final(self, error_class: ErrorClass) -> SemrouteError:
        name = self.attempts[-1].model.name
        if error_class is ErrorClass.POLICY_CONTENT_FILTER:
            return ContentFilteredError(f"the content filter of {name} refused", self.attempts)
        return UpstreamRequestError(f"{name} refused the request as malformed", self.attempts)

    def _exhausted(self) -> SemrouteError:
        """Why no candidate answered."""
        classes = {attempt.error_class for attempt in self.attempts}
        if classes == {ErrorClass.CALLER_CONTEXT_LENGTH}:
            return ContextLengthError(
                "the conversation is too long for every candidate", self.attempts
            )
        if classes == {ErrorClass.PROVIDER_CREDENTIALS}:
            return CredentialsError(
                "every upstream refused the server's own credentials", self.attempts
            )
        if classes == {ErrorClass.POLICY_DENIED} and self._budget_error:
            return self._budget_error
        tried = ", ".join(f"{a.model.name}: {a.error_class}" for a in self.attempts)
        return UnavailableError(
            f"no backend could answer ({tried})",
            self.attempts,
            _RETRY_AFTER_SECONDS if self._retry_after is None else self._retry_after,
        )


def _restart(candidate: Candidate) -> Restart:
    return Restart(candidate.model, "the answer broke off")


def _before_or_after(error: BackendError, began: bool) -> BackendError:
    """A break before the first delta is a broken connection; after it, an interruption."""
    if error.error_class not in {ErrorClass.PROVIDER_CONNECT, ErrorClass.PROVIDER_INTERRUPTED}:
        return error
    kind = ErrorClass.PROVIDER_INTERRUPTED if began else ErrorClass.PROVIDER_CONNECT
    return BackendError(kind, error.detail, error.retry_after)
