"""A limit for each of many waits, for the price of one timer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class Clock:
    """Limits how long each of many waits may take, one after the other. Close it at the end.

    ``asyncio.timeout`` sets a timer and takes it back, which for every token of every stream is
    a good part of the work. This one lets its timer run, and looks when it rings whether it is
    still meant: a stream sets one about as often as its limit is long, not as often as it has
    tokens. Lives on one event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._due = 0.0
        self._waiting: asyncio.Task[object] | None = None
        self._rang = False

    async def wait(self, awaitable: Awaitable[T], seconds: float) -> T:
        """What ``awaitable`` gives; raises ``TimeoutError`` where it takes more than ``seconds``.

        It is cancelled then. As with ``asyncio.timeout``, a cancellation from elsewhere stays one.
        """
        task = asyncio.current_task(self._loop)
        assert task
        asked_before = task.cancelling()
        self._due = self._loop.time() + seconds
        if self._timer is None or self._due < self._rings_at:
            self._set()
        self._waiting, self._rang = task, False
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._rang and task.cancelling() - 1 <= asked_before:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
            if self._rang:
                task.uncancel()

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets it again
        if self._loop.time() < self._due:
            self._set()
        else:
            self._rang = True
            self._waiting.cancel()
