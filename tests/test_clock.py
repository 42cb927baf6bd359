"""A clock tells a wait that took too long from one that somebody else ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from semroute_service.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable

SOON, LATE = 0.01, 30.0


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def after(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)
    return value


async def test_what_comes_in_time_is_given() -> None:
    with contextlib.closing(Clock()) as clock:
        assert [await clock.wait(after(0, n), LATE) for n in range(3)] == [0, 1, 2]


async def test_what_does_not_come_in_time_is_ended_and_told() -> None:
    ended = asyncio.Event()

    async def watched() -> None:
        try:
            await forever()
        finally:
            ended.set()

    with contextlib.closing(Clock()) as clock:
        with pytest.raises(TimeoutError):
            await clock.wait(watched(), SOON)
        assert ended.is_set()
        task = asyncio.current_task()
        assert task
        assert not task.cancelling()
        assert await clock.wait(after(0, 1), LATE) == 1


@pytest.mark.parametrize("limits", [(LATE, SOON), (SOON, LATE, SOON)])
async def test_each_wait_has_its_own_limit(limits: tuple[float, ...]) -> None:
    """Also where the timer of an earlier one would ring later, or sooner."""
    *before, last = limits
    with contextlib.closing(Clock()) as clock:
        for limit in before:
            await clock.wait(after(0, 1), limit)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clock.wait(forever(), last), LATE)


async def test_a_timer_that_rings_for_an_earlier_wait_ends_no_later_one() -> None:
    with contextlib.closing(Clock()) as clock:
        await clock.wait(after(0, 1), SOON)
        assert await clock.wait(after(5 * SOON, 2), LATE) == 2
        await asyncio.sleep(5 * SOON)  # nor is anything ended while nobody waits
        assert await clock.wait(after(0, 3), LATE) == 3


async def test_many_waits_set_one_timer() -> None:
    loop = asyncio.get_running_loop()
    with (
        mock.patch.object(loop, "call_at", wraps=loop.call_at) as call_at,
        contextlib.closing(Clock()) as clock,
    ):
        for _ in range(100):
            await clock.wait(asyncio.sleep(0), LATE)
        assert call_at.call_count == 1


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    with contextlib.closing(Clock()) as clock:
        task = asyncio.create_task(_waits(clock, forever(), LATE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_beside_its_own_stays_one() -> None:
    """Both in the same turn of the loop: whoever asked from outside must get what it asked for."""
    with contextlib.closing(Clock()) as clock:
        task = asyncio.create_task(_waits(clock, forever(), SOON))
        await asyncio.sleep(0)
        ring = clock._ring

        def both() -> None:
            ring()
            task.cancel()

        with mock.patch.object(clock, "_ring", both):
            clock._due = 0.0
            clock._set()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert task.cancelled()


async def test_an_error_on_the_way_out_is_not_hidden() -> None:
    async def fails() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError from None

    task = asyncio.current_task()
    assert task
    with contextlib.closing(Clock()) as clock:
        with pytest.raises(LookupError):
            await clock.wait(fails(), SOON)
        assert not task.cancelling()


async def test_another_task_may_wait_next() -> None:
    """As when an answer that began in a race goes on outside it."""
    with contextlib.closing(Clock()) as clock:
        first = asyncio.create_task(_waits(clock, after(0, 1), LATE))
        assert await first == 1
        with pytest.raises(TimeoutError):
            await clock.wait(forever(), SOON)


async def _waits(clock: Clock, what: Awaitable[object], limit: float) -> object:
    return await clock.wait(what, limit)
