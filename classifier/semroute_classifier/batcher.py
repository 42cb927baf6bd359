"""Concurrent requests share passes.

The encoder has a thread of its own. Whatever waits when it becomes free goes into the next pass;
nothing ever waits for company. The queue is bounded and refuses at once when it is full, and what
is asked by a caller who has left, or whose deadline has passed, is dropped before it costs a pass.
Not safe to call from two event loops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_BATCH = 8
"""What a pass brings is delivered at once: answers to 32 held the event loop up for 70 ms."""
MAX_WAITING = 1024
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class QueueFullError(Exception):
    """Too much waits for the encoder; try again later."""


@dataclass(frozen=True, slots=True)
class _Job(Generic[_Item, _Result]):
    items: Sequence[_Item]
    result: asyncio.Future[Sequence[_Result]]


class Batcher(Generic[_Item, _Result]):
    """Calls ``run`` in a thread, one batch at a time, for any number of callers.

    ``run`` gives one result for each item, in order, that depends on no other item.
    """

    def __init__(
        self,
        run: Callable[[Sequence[_Item]], Sequence[_Result]],
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._call = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._jobs: deque[_Job[_Item, _Result]] = deque()
        self._waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    async def submit(self, items: Sequence[_Item]) -> list[_Result]:
        """One result for each of ``items``, in order.

        Raises ``QueueFullError`` at once where too many wait already, and whatever ``run`` raises.
        """
        if self._waiting and self._waiting + len(items) > self._max_waiting:
            raise QueueFullError(f"{self._waiting} texts are waiting for the encoder")
        loop = asyncio.get_running_loop()
        jobs: list[_Job[_Item, _Result]] = [
            _Job(items[start : start + self._max_batch], loop.create_future())
            for start in range(0, len(items), self._max_batch)
        ]
        self._jobs.extend(jobs)
        self._waiting += len(items)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            parts = await asyncio.gather(*(job.result for job in jobs))
            return [result for part in parts for result in part]
        finally:
            for job in jobs:
                job.result.cancel()

    def close(self) -> None:
        """Let the thread end after the pass that runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next_batch():
                items = [item for job in batch for item in job.items]
                try:
                    results = await loop.run_in_executor(self._thread, self._call, items)
                except Exception as error:  # the callers must hear of it, whatever it is
                    self._fail(batch, error)
                else:
                    self._deliver(batch, results)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Job[_Item, _Result]]:
        batch: list[_Job[_Item, _Result]] = []
        room = self._max_batch
        while self._jobs and len(self._jobs[0].items) <= room:
            job = self._jobs.popleft()
            self._waiting -= len(job.items)
            if not job.result.done():
                batch.append(job)
                room -= len(job.items)
        return batch

    @staticmethod
    def _deliver(batch: list[_Job[_Item, _Result]], results: Sequence[_Result]) -> None:
        start = 0
        for job in batch:
            if not job.result.done():
                job.result.set_result(results[start : start + len(job.items)])
            start += len(job.items)

    @staticmethod
    def _fail(batch: list[_Job[_Item, _Result]], error: Exception) -> None:
        for job in batch:
            if not job.result.done():
                job.result.set_exception(error)
