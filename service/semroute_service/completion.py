"""One answer: attempts in order, until one is whole.

Until the first delta nothing is promised, and a failure moves on to the next candidate. After it
the answer is never continued silently by another model: it ends in an error or, where the caller
allowed it, begins again after a ``Restart``. ``Finish`` comes only from a backend that said how
its answer ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from semroute_service import governance
from semroute_service.attempts import Attempts, Run
from semroute_service.backends import BackendError, ChatRequest, Clocks, End, Whole
from semroute_service.clock import Clock
from semroute_service.decision import Attempt, Delta, ErrorClass, Finish, Restart
from semroute_service.errors import StreamInterruptedError
from semroute_service.exhausted import exhausted, is_final, refused
from semroute_service.query import Parameter
from semroute_service.schedule import HURRIED_SECONDS, Schedule, Slot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from semroute_service.backends import BackendPool, Event
    from semroute_service.backends.availability import Call
    from semroute_service.decision import Candidate, Decision
    from semroute_service.profile import Behavior, Profile
    from semroute_service.query import Options, Query

CompletionEvent: TypeAlias = Delta | Attempt | Restart | Finish


@dataclass(eq=False)
class _Answer:
    """One candidate's answer as it comes; what its backend did wrong is in ``run`` afterwards."""

    slot: Slot
    run: Run
    deltas: AsyncGenerator[Delta, None]
    first: Delta | None = None

    async def start(self) -> None:
        """Wait for the first delta, or for an end without one."""
        self.first = await anext(self.deltas, None)


@dataclass
class Completion:
    """Answers one decided query. Use ``events`` once."""

    decision: Decision
    query: Query
    options: Options
    profile: Profile
    attempts: Attempts
    backends: BackendPool
    deadline: float | None = None
    """When the caller will have no more use for it, of ``time.monotonic``."""
    _schedule: Schedule = field(init=False)
    _told: int = 0

    def __post_init__(self) -> None:
        behavior = self.profile.behavior
        self._schedule = Schedule(
            self.decision.admitted,
            behavior.max_retries,
            self.backends.availability,
            self.deadline,
            patience=behavior.first_token,
        )

    async def events(self) -> AsyncGenerator[CompletionEvent, None]:
        """Deltas and failed attempts, then a ``Finish``; raises ``SemrouteError`` otherwise."""
        broken: Candidate | None = None  # the one whose unfinished answer the caller has
        while found := await self._schedule.next():
            answer = await self._started(self._answer(*found))
            run, restart = answer.run, broken is not None
            async with contextlib.aclosing(answer.deltas):
                for attempt in self._untold():
                    yield attempt
                delta = answer.first
                while delta:
                    if restart:
                        yield _restart(run.candidate)
                        restart = False
                    yield delta
                    delta = await anext(answer.deltas, None)
            for attempt in self._untold():
                yield attempt
            if run.end:
                if restart:
                    yield _restart(run.candidate)
                yield self._finish(run.end)
                return
            assert run.error is not None
            if run.began and not self.options.allow_restart:
                raise self._interrupted(run.candidate)
            if is_final(run.error, self.profile.behavior):
                raise self._interrupted(broken) if broken else refused(run, self.attempts.made)
            self._schedule.failed(answer.slot, run.error)
            if run.began:
                broken = run.candidate
                self._schedule.give_up(answer.slot)
        raise self._interrupted(broken) if broken else exhausted(self.attempts, self._schedule)

    def _answer(self, slot: Slot, call: Call) -> _Answer:
        run = Run(slot.candidate, call)
        return _Answer(slot, run, self._stream(run, self._schedule.share()))

    async def _stream(self, run: Run, share: float | None) -> AsyncGenerator[Delta, None]:
        """One attempt's deltas. ``share`` is how long it may take to the first, in seconds."""
        behavior = self.profile.behavior
        with self.attempts.keep(run), contextlib.closing(Clock()) as clock:
            await self.attempts.admit(run)
            request = ChatRequest(
                run.model, self.query.messages, self._options(run), _clocks(behavior)
            )
            async with contextlib.aclosing(self.backends.stream(request)) as events:
                while run.end is None:
                    event = await self._next(events, run, clock, share)
                    if isinstance(event, Whole):
                        event = await anext(events)  # no clock can spoil what is whole
                    if isinstance(event, End):
                        run.finish(event)
                    elif isinstance(event, Delta) and event:
                        run.take(event)
                        yield event

    async def _started(self, answer: _Answer) -> _Answer:
        """``answer`` once it has begun or failed; or, where the profile hedges and it is slow,
        that of the next candidate, if that begins sooner."""
        hedge_after = self.profile.behavior.hedge_after
        if hedge_after is None:
            await answer.start()
            return answer
        racing = {asyncio.create_task(answer.start()): answer}
        async with contextlib.AsyncExitStack() as unless_it_goes_on:
            try:
                done, _ = await asyncio.wait(racing, timeout=hedge_after)
                if not done and (found := self._schedule.beside(answer.slot)):
                    other = self._answer(*found)
                    racing[asyncio.create_task(other.start())] = other
                winner = await self._winner(racing)
                unless_it_goes_on.push_async_callback(winner.deltas.aclose)
            finally:
                await self._let_go(racing)
            unless_it_goes_on.pop_all()
        return winner

    async def _winner(self, racing: dict[asyncio.Task[None], _Answer]) -> _Answer:
        """The first of ``racing`` to begin, to fail for good, or the last to fail; taken out."""
        while True:
            done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                answer = racing.pop(task)
                task.result()
                error = answer.run.error
                if error is None or not racing or is_final(error, self.profile.behavior):
                    for other in racing.values():
                        other.run.beaten = True
                    return answer
                self._schedule.failed(answer.slot, error)

    async def _let_go(self, racing: dict[asyncio.Task[None], _Answer]) -> None:
        for task, answer in racing.items():
            self._schedule.rest(answer.slot)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await answer.deltas.aclose()

    async def _next(
        self, events: AsyncGenerator[Event, None], run: Run, clock: Clock, share: float | None
    ) -> Event:
        """The next event, while the clocks allow."""
        limit = self._limit(run, share)
        try:
            if limit <= 0:  # what is there already would be had without any wait
                raise TimeoutError
            return await clock.wait(anext(events), limit)
        except TimeoutError:
            behavior = self.profile.behavior
            first, total = run.model.first_token or behavior.first_token, behavior.total
            left = first if share is None else share
            run.hurried = not run.began and left < min(first, HURRIED_SECONDS)
            over = total is not None and time.perf_counter() - run.started >= total
            why = f"not whole within {total:g} s" if over else f"silent for {limit:.3g} s"
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, why) from None
        except StopAsyncIteration:
            raise BackendError(ErrorClass.PROVIDER_INTERRUPTED, "no end") from None

    def _limit(self, run: Run, share: float | None) -> float:
        """Seconds that the next event may take."""
        behavior = self.profile.behavior
        if run.began and behavior.total is None:
            return behavior.idle_tokens
        elapsed = time.perf_counter() - run.started
        total = math.inf if behavior.total is None else behavior.total
        if run.began:
            return min(behavior.idle_tokens, total - elapsed)
        first = run.model.first_token or behavior.first_token
        if share is not None:
            first = min(first, share)
        return min(first, total) - elapsed

    def _options(self, run: Run) -> Options:
        """The caller's options; what they leave unset is filled in from the row, and an answer
        whose cost is limited is no longer than the limit pays for."""
        route = self.profile.routes[self.decision.route]
        sampling = self.options.sampling
        max_tokens = sampling.max_tokens or route.max_tokens or self._affordable(run)
        temperature = sampling.temperature
        if temperature is None and Parameter.TEMPERATURE not in run.model.refuses:
            temperature = route.temperature
        if (max_tokens, temperature) == (sampling.max_tokens, sampling.temperature):
            return self.options
        sampling = replace(sampling, max_tokens=max_tokens, temperature=temperature)
        return replace(self.options, sampling=sampling)

    def _affordable(self, run: Run) -> int | None:
        """No longer than what was reserved pays for; None where money is not limited."""
        price, max_cost = run.model.effective_price, self.attempts.case.max_cost
        limited = max_cost is not None or self.profile.limits.monthly is not None
        if not limited or price is None or not price.output:
            return None
        usual = governance.DEFAULT_OUTPUT_TOKENS + run.model.thinking_tokens
        if max_cost is None:
            return usual
        others = self.attempts.committed - run.committed
        left = max_cost - others - price.cost(self.attempts.case.prompt_tokens, 0)
        return max(1, min(usual, left * 1_000_000 // price.output))

    def _untold(self) -> list[Attempt]:
        """The attempts that have failed since this was last asked."""
        new = self.attempts.made[self._told :]
        self._told += len(new)
        return [attempt for attempt in new if attempt.error_class]

    def _finish(self, end: End) -> Finish:
        made = self.attempts.made
        ours = next(attempt for attempt in made if attempt.error_class is None)
        return Finish(end.reason, ours.model, ours.usage, self.attempts.cost, tuple(made))

    def _interrupted(self, candidate: Candidate) -> StreamInterruptedError:
        return StreamInterruptedError(
            f"the answer of {candidate.model.name} broke off; what has come is not whole",
            self.attempts.made,
        )


def _clocks(behavior: Behavior) -> Clocks:
    """Those that a backend watches, without those before which the clocks of tokens, which are
    watched here, always ring."""
    first, longest = behavior.first_token, max(behavior.first_token, behavior.idle_tokens)
    return Clocks(
        connect=behavior.connect,
        headers=behavior.headers if behavior.headers < first else None,
        idle_bytes=behavior.idle_bytes if behavior.idle_bytes < longest else None,
    )


def _restart(candidate: Candidate) -> Restart:
    return Restart(candidate.model, "the answer broke off")
