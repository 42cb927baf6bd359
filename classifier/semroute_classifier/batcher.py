"""Concurrent requests share encoder passes.

The encoder has a thread of its own. Whatever waits when it becomes free goes into the next pass;
nothing ever waits for company. The queue is bounded and refuses at once when it is full, and a
text whose caller has left is dropped before it costs a pass. Not safe to call from two event
loops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from semroute_classifier.encoders import States

MAX_BATCH = 32
MAX_WAITING = 1024


class QueueFullError(Exception):
    """Too many texts wait for the encoder; try again later."""


@dataclass(frozen=True, slots=True)
class _Job:
    texts: Sequence[str]
    result: asyncio.Future[States]


class Batcher:
    """Runs ``encode`` in a thread, one pass at a time, for any number of callers."""

    def __init__(
        self,
        encode: Callable[[Sequence[str]], States],
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    async def encode(self, texts: Sequence[str]) -> States:
        """Embed ``texts``: shape (len(texts), width).

        Raises ``QueueFullError`` at once where too many texts wait already.
        """
        if self._waiting and self._waiting + len(texts) > self._max_waiting:
            raise QueueFullError(f"{self._waiting} texts are waiting for the encoder")
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(texts[start : start + self._max_batch], loop.create_future())
            for start in range(0, len(texts), self._max_batch)
        ]
        self._jobs.extend(jobs)
        self._waiting += len(texts)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return np.concatenate(await asyncio.gather(*(job.result for job in jobs)))
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
                texts = [text for job in batch for text in job.texts]
                try:
                    vectors = await loop.run_in_executor(self._thread, self._encode, texts)
                except Exception as error:  # the callers must hear of it, whatever it is
                    self._fail(batch, error)
                else:
                    self._deliver(batch, vectors)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        room = self._max_batch
        while self._jobs and len(self._jobs[0].texts) <= room:
            job = self._jobs.popleft()
            self._waiting -= len(job.texts)
            if not job.result.done():
                batch.append(job)
                room -= len(job.texts)
        return batch

    @staticmethod
    def _deliver(batch: list[_Job], vectors: States) -> None:
        start = 0
        for job in batch:
            if not job.result.done():
                job.result.set_result(vectors[start : start + len(job.texts)])
            start += len(job.texts)

    @staticmethod
    def _fail(batch: list[_Job], error: Exception) -> None:
        for job in batch:
            if not job.result.done():
                job.result.set_exception(error)
