"""Answers for many items at once: who is asked when, what is waited for, and what ends a run.

One item's failure is its own row. Three things concern all items, and are waited out or end the
run, with what was not asked left for the next one: a server that is away, a month's budget that is
exhausted, and a person or a system that wants the run to stop. Backends that are down or limit the
rate are waited for by each item that needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from semroute import RouterError
from semroute_service.cli.answer import Answer
from semroute_service.cli.items import arguments
from semroute_service.cli.patience import Delay, Patience, Tries, backoff

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Mapping

    from semroute import RouterClient
    from semroute.v1 import router_pb2 as pb
    from semroute_service.cli.journal import Journal
    from semroute_service.cli.progress import Progress

_DRAW_SECONDS = 0.5
_SYNC_SECONDS = 1.0
_SETTLE_SECONDS = 1.0
_PROBE_SECONDS = 5.0
_TOGETHER_SECONDS = 1.0
_MOST_LOSSES = 5


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the input: the request that it makes, or what is wrong with it."""

    line: int
    key: int
    id: Any = None
    request: pb.CompleteRequest | None = None
    error: Mapping[str, str] | None = None


@dataclass
class Answering:
    """Has ``items`` answered, at most ``concurrency`` at a time.

    What comes of an item goes to ``journal``, and its place there to ``places``, by line.
    ``timeout`` bounds one call, ``wait`` what is waited for a server or a backend, in seconds.
    ``stopped`` is why a run ended before its items did, empty where it did not, and ``status`` how
    it exits for that.
    """

    items: Iterator[Item]
    journal: Journal
    places: array[int]
    progress: Progress
    concurrency: int
    timeout: float
    wait: float
    stopped: str = ""
    status: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _put_back: deque[Item] = field(default_factory=deque)
    _working: int = 0
    _return: asyncio.Task[None] | None = None
    _synced: float = field(default_factory=time.monotonic)
    _told_until: float = 0.0

    def __post_init__(self) -> None:
        self._patience = Patience(self.wait)

    async def run(self, client: RouterClient) -> None:
        """Raises ``RouterError`` where there is no server to begin with, and ``OSError`` where
        the journal cannot be written."""
        self._client = client
        drawing: asyncio.Task[None] | None = None
        try:
            await self._begin()
            drawing = asyncio.create_task(self._draw())
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(self._work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            for task in (drawing, self._return):
                if task:
                    task.cancel()
            self.journal.sync()

    def stop(self, why: str, status: int = 1) -> None:
        """Ask nothing more; what has been asked is still taken in."""
        if not self.stopped:
            self.stopped, self.status = why, status
        self._stopping.set()
        self._patience.wake()

    async def _work(self) -> None:
        self._working += 1
        try:
            while not self._stopping.is_set() and (item := self._next()):
                row = {"error": item.error} if item.error else await self._answer(item)
                if row is None:
                    return
                await self._keep(item, row)
        finally:
            self._working -= 1

    def _next(self) -> Item | None:
        return self._put_back.popleft() if self._put_back else next(self.items, None)

    async def _keep(self, item: Item, row: dict[str, Any]) -> None:
        if item.id is not None:
            row = {"id": item.id, **row}
        self.places[item.line - 1] = self.journal.finish(item.line, item.key, row)
        self.progress.advance(failed="error" in row, cost=row.get("cost_usd", 0.0))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._synced = time.monotonic()
            await asyncio.to_thread(self.journal.sync)
        else:
            await asyncio.sleep(0)  # wrong lines alone would never give the others their turn

    async def _answer(self, item: Item) -> dict[str, Any] | None:
        """The row of an item; None where it was not answered and its worker is to end."""
        self.journal.start(item.line, item.key)
        answer, tries = Answer(), Tries()
        while True:
            try:
                return await self._ask(item, answer)
            except RouterError as error:
                is_away, is_refused = _is_away(error), error.reason == "BUDGET_EXCEEDED"
                if is_refused and (tries.alone or self._working > 1):
                    self._leave(item, error)
                    return None
                if not is_refused and not await self._waited(error, answer, tries):
                    return answer.failed(error)
                if is_refused:
                    tries.alone = True
                    await self._pause(_SETTLE_SECONDS)  # what others used may not be settled yet
            if self._stopping.is_set():
                if not is_away:
                    self.journal.put_back(item.line)
                return None

    async def _waited(self, error: RouterError, answer: Answer, tries: Tries) -> bool:
        """Wait until the same may be asked again; False where that would not help."""
        if _is_away(error):
            tries.losses += 1
            if tries.losses <= _MOST_LOSSES:
                await self._until_it_is_back()
            return tries.losses <= _MOST_LOSSES
        delay = self._patience.delay(error, answer, tries)
        if delay is None:
            return False
        await self._wait(error, delay)
        return True

    async def _wait(self, error: RouterError, delay: Delay) -> None:
        """All who wait at a time say it once."""
        now, news = time.monotonic(), self._patience.news
        if now >= self._told_until:
            self.progress.say(f"{error.message}; waiting up to {self.wait:g} s")
        self._told_until = max(self._told_until, now + delay.most + _TOGETHER_SECONDS)
        await self._pause(delay.least)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), delay.most - delay.least)

    async def _ask(self, item: Item, answer: Answer) -> dict[str, Any]:
        assert item.request
        answer.begin()
        # Nobody reads along, so an answer that breaks off may begin again elsewhere.
        asked = {**arguments(item.request), "allow_restart": True, "timeout": self.timeout}
        async with self._client.complete(**asked) as events:
            async for event in events.events():
                answer.take(event)
        if not answer.is_whole:
            code = grpc.StatusCode.UNAVAILABLE
            raise RouterError(code, "the stream ended without finish", "STREAM_INTERRUPTED")
        self._patience.answered()
        return answer.row()

    def _leave(self, item: Item, error: RouterError) -> None:
        """Ask one less at a time: what the others have reserved is part of what is booked, so only
        the last one left can say that the budget is exhausted."""
        self.journal.put_back(item.line)
        self._put_back.append(item)
        if self._working == 1:
            self.stop(_renewed(error))
        elif self._working == self.concurrency:
            self.progress.say("the budget is nearly used up; fewer are asked at a time")

    async def _begin(self) -> None:
        """Wait for a server that is starting; one that is not there is told at once."""
        try:
            await self._ready()
        except _NotReadyError:
            await self._until_it_is_back()

    async def _until_it_is_back(self) -> None:
        """All who miss the server wait together."""
        if self._return is None or self._return.done():
            self._return = asyncio.create_task(self._look_for_it())
        await asyncio.shield(self._return)

    async def _look_for_it(self) -> None:
        until = time.monotonic() + self.wait
        tries = 0
        while not self._stopping.is_set():
            try:
                await self._ready()
            except (RouterError, _NotReadyError) as error:
                if isinstance(error, RouterError) and not _is_away(error):
                    return self.stop(f"the server cannot answer: {error.message}")
                if not tries:
                    does = "starting" if isinstance(error, _NotReadyError) else "away"
                    self.progress.say(f"the server is {does}; waiting up to {self.wait:g} s")
                if time.monotonic() > until:
                    return self.stop(f"no server has answered for {self.wait:g} s")
            else:
                return self.progress.say("the server is back") if tries else None
            await self._pause(min(backoff(tries), _PROBE_SECONDS))
            tries += 1
        return None

    async def _ready(self) -> None:
        """Deciding nothing costs nothing, and is answered by a server that is ready."""
        try:
            await self._client.batch_decide([], timeout=_PROBE_SECONDS)
        except RouterError as error:
            if error.reason == "NOT_READY" or error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _NotReadyError from None
            raise

    async def _draw(self) -> None:
        """Also while nothing comes, the bar lives."""
        while True:
            self.progress.show()
            await asyncio.sleep(_DRAW_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the run is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


class _NotReadyError(Exception):
    """The server is there, and starts."""


def _is_away(error: RouterError) -> bool:
    """Whether nobody answered, rather than a server that says what is wrong."""
    lost = error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    return lost and error.reason in {"", "NOT_READY"}


def _renewed(error: RouterError) -> str:
    days = f", and renewed in {error.retry_after / 86_400:.1f} days" if error.retry_after else ""
    return f"{error.message}{days}"
