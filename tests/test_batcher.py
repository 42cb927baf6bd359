"""The batcher: callers share passes, and each gets its own rows or its own error."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_classifier.batcher import Batcher, QueueFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from numpy.typing import NDArray

    from semroute_classifier.encoders import States

Passes: TypeAlias = "Batcher[str, NDArray[np.float32]]"

PATIENCE = 30.0
"""Seconds after which a test is taken to hang."""


class Encoder:
    """Turns a number's text into that number; notes every pass, and can be held in one."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._open = threading.Event()
        self._open.set()

    def __call__(self, texts: Sequence[str]) -> States:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.passes.append(list(texts))
        self._open.wait(PATIENCE)
        self._at_once -= 1
        if "bad" in texts:
            raise ValueError("the encoder stumbled")
        return np.array([[float(text), 1.0] for text in texts], dtype=np.float32)

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()


@contextlib.asynccontextmanager
async def batching(
    max_batch: int = 32, max_waiting: int = 1024
) -> AsyncIterator[tuple[Passes, Encoder]]:
    encoder = Encoder()
    batcher: Passes = Batcher(
        lambda texts: list(encoder(texts)), max_batch=max_batch, max_waiting=max_waiting
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield batcher, encoder
    finally:
        encoder.release()
        batcher.close()


def numbers(start: int, stop: int) -> list[str]:
    return [str(i) for i in range(start, stop)]


def ask(batcher: Passes, *texts: str) -> asyncio.Task[list[str]]:
    """A caller; what it gets is turned back into the texts, which shows whose rows they are."""

    async def call() -> list[str]:
        states = await batcher.submit(texts)
        return [str(int(row[0])) for row in states]

    return asyncio.create_task(call())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Let every task that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def held(batcher: Passes, encoder: Encoder, *texts: str) -> asyncio.Task[list[str]]:
    """A caller whose pass has begun and does not end before ``encoder.release()``."""
    encoder.hold()
    task = ask(batcher, *texts)
    await until(lambda: bool(encoder.passes))
    return task


# ---- sharing


async def test_one_caller_gets_its_rows() -> None:
    """Rows come in the order of the texts, with the encoder's width."""
    async with batching() as (batcher, encoder):
        states = await batcher.submit(["3", "1", "2"])
    assert [list(row) for row in states] == [[3, 1], [1, 1], [2, 1]]
    assert encoder.passes == [["3", "1", "2"]]


async def test_callers_that_wait_share_the_next_pass() -> None:
    """Whatever waits when the encoder becomes free goes into one pass."""
    async with batching() as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        others = [ask(batcher, text) for text in numbers(1, 11)]
        await settle()
        encoder.release()
        assert list(await asyncio.gather(first, *others)) == [[text] for text in numbers(0, 11)]
    assert encoder.passes == [["0"], numbers(1, 11)]


async def test_callers_of_the_same_moment_share_a_pass() -> None:
    """An idle encoder takes together what comes together."""
    async with batching() as (batcher, encoder):
        await asyncio.gather(*(ask(batcher, text) for text in numbers(0, 5)))
    assert encoder.passes == [numbers(0, 5)]


async def test_nothing_waits_for_company() -> None:
    """Callers one after the other are each served alone, however large a pass could be."""
    async with batching() as (batcher, encoder):
        for text in numbers(0, 3):
            assert await ask(batcher, text) == [text]
    assert encoder.passes == [["0"], ["1"], ["2"]]


async def test_no_pass_is_larger_than_allowed() -> None:
    """However many wait, a pass holds at most ``max_batch`` texts, and one runs at a time."""
    async with batching(max_batch=8) as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        others = [ask(batcher, text) for text in numbers(1, 101)]
        await settle()
        encoder.release()
        await asyncio.gather(first, *others)
    assert [len(texts) for texts in encoder.passes] == [1, *[8] * 12, 4]
    assert encoder.most_at_once == 1


async def test_a_large_request_is_cut_into_passes() -> None:
    """A request larger than a pass is served in several, and comes back whole and in order."""
    async with batching(max_batch=32) as (batcher, encoder):
        assert await ask(batcher, *numbers(0, 100)) == numbers(0, 100)
    assert [len(texts) for texts in encoder.passes] == [32, 32, 32, 4]


async def test_the_rest_of_a_large_request_has_company() -> None:
    """What is left of a large request shares its pass with the next caller."""
    async with batching(max_batch=4) as (batcher, encoder):
        large, small = ask(batcher, *numbers(0, 6)), ask(batcher, "6", "7")
        assert list(await asyncio.gather(large, small)) == [numbers(0, 6), ["6", "7"]]
    assert encoder.passes == [numbers(0, 4), numbers(4, 8)]


# ---- a full queue


async def test_a_full_queue_refuses_at_once() -> None:
    """One text too many is refused while the pass still runs; those that wait are served."""
    async with batching(max_waiting=4) as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        waiting = [ask(batcher, "1", "2"), ask(batcher, "3", "4")]
        await settle()
        with pytest.raises(QueueFullError, match="4 texts are waiting"):
            await batcher.submit(["5"])
        encoder.release()
        assert list(await asyncio.gather(first, *waiting)) == [["0"], ["1", "2"], ["3", "4"]]
        assert await ask(batcher, "6") == ["6"]
    assert encoder.passes == [["0"], numbers(1, 5), ["6"]]


async def test_what_runs_does_not_wait() -> None:
    """Texts in the running pass take no room in the queue."""
    async with batching(max_waiting=2) as (batcher, encoder):
        first = await held(batcher, encoder, "0", "1")
        second = ask(batcher, "2", "3")
        await settle()
        encoder.release()
        assert list(await asyncio.gather(first, second)) == [["0", "1"], ["2", "3"]]


async def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    """A request is not refused for its size alone, for then it could never be served."""
    async with batching(max_batch=4, max_waiting=4) as (batcher, _):
        assert await ask(batcher, *numbers(0, 20)) == numbers(0, 20)


# ---- callers that leave


async def test_a_caller_that_left_costs_no_pass() -> None:
    """A cancelled caller's text is never embedded, and its neighbours are."""
    async with batching() as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        gone, stays = ask(batcher, "1"), ask(batcher, "2")
        await settle()
        gone.cancel()
        await settle()
        assert gone.cancelled()
        encoder.release()
        assert list(await asyncio.gather(first, stays)) == [["0"], ["2"]]
    assert encoder.passes == [["0"], ["2"]]


async def test_all_may_leave() -> None:
    """When everybody has left nothing more is embedded, and the next caller is served."""
    async with batching(max_batch=2) as (batcher, encoder):
        everybody = [await held(batcher, encoder, "0"), *(ask(batcher, n) for n in numbers(1, 9))]
        await settle()
        for task in everybody:
            task.cancel()
        await asyncio.gather(*everybody, return_exceptions=True)
        encoder.release()
        assert await ask(batcher, "9") == ["9"]
    assert encoder.passes == [["0"], ["9"]]


async def test_leaving_during_a_pass_does_not_disturb_the_others_in_it() -> None:
    """Those who share the pass of a caller that leaves get their own rows."""
    async with batching() as (batcher, encoder):
        encoder.hold()
        tasks = [ask(batcher, text) for text in numbers(0, 3)]
        await until(lambda: bool(encoder.passes))
        tasks[1].cancel()
        await settle()
        encoder.release()
        assert list(await asyncio.gather(tasks[0], tasks[2])) == [["0"], ["2"]]


async def test_the_rest_of_a_large_request_is_dropped() -> None:
    """When the caller of a large request leaves, its further passes do not run."""
    async with batching(max_batch=2) as (batcher, encoder):
        large = await held(batcher, encoder, *numbers(0, 10))
        large.cancel()
        await settle()
        encoder.release()
        assert await ask(batcher, "10") == ["10"]
    assert encoder.passes == [["0", "1"], ["10"]]


# ---- errors


async def test_an_error_reaches_its_pass_and_no_other() -> None:
    """Every caller of a failed pass hears of it; those before and after are served."""
    async with batching() as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        together = [ask(batcher, text) for text in ("1", "bad", "2")]
        await settle()
        encoder.release()
        assert await first == ["0"]
        for outcome in await asyncio.gather(*together, return_exceptions=True):
            assert isinstance(outcome, ValueError)
            assert str(outcome) == "the encoder stumbled"
        assert await ask(batcher, "3") == ["3"]


async def test_those_who_wait_behind_an_error_are_served() -> None:
    """A failed pass does not take the queue with it."""
    async with batching(max_batch=1) as (batcher, encoder):
        bad = await held(batcher, encoder, "bad")
        behind = [ask(batcher, text) for text in numbers(1, 4)]
        await settle()
        encoder.release()
        with pytest.raises(ValueError, match="stumbled"):
            await bad
        assert list(await asyncio.gather(*behind)) == [["1"], ["2"], ["3"]]


async def test_an_error_ends_a_large_request() -> None:
    """Where one pass of a large request fails, the caller hears it and the rest is not run."""
    async with batching(max_batch=2) as (batcher, encoder):
        large = await held(batcher, encoder, "0", "bad", *numbers(2, 8))
        encoder.release()
        with pytest.raises(ValueError, match="stumbled"):
            await large
        assert await ask(batcher, "8") == ["8"]
    assert len(encoder.passes) <= 3  # the next one may have begun before the caller heard
    assert encoder.passes[-1] == ["8"]


async def test_closing_leaves_nobody_waiting() -> None:
    """When it is closed, the pass that runs is delivered and those behind it get an error."""
    async with batching() as (batcher, encoder):
        first = await held(batcher, encoder, "0")
        behind = ask(batcher, "1")
        await settle()
        batcher.close()
        encoder.release()
        assert await first == ["0"]
        with pytest.raises(RuntimeError):
            await behind


# ---- any interleaving


@settings(max_examples=60, deadline=None)
@given(
    callers=st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 6), st.booleans(), st.integers(0, 19)),
        min_size=1,
        max_size=25,
    ),
    max_batch=st.integers(1, 9),
)
def test_results_go_to_the_right_callers(
    callers: list[tuple[int, int, bool, int]], max_batch: int
) -> None:
    """However callers of any size come, leave and fail, each that stays gets its own rows.

    A caller has so many texts, comes after so many turns of the loop, may leave one turn later,
    and one in twenty breaks its pass.
    """

    async def scenario() -> None:
        async with batching(max_batch) as (batcher, encoder):

            async def caller(i: int) -> None:
                count, delay, leaves, luck = callers[i]
                texts = [str(100 * i + k) for k in range(count)]
                sent = [*texts, "bad"] if luck == 0 else texts
                for _ in range(delay):
                    await asyncio.sleep(0.0002)
                task = ask(batcher, *sent)
                if leaves:
                    await asyncio.sleep(0.0002)
                    task.cancel()
                try:
                    assert await task == texts
                except ValueError:
                    assert any("bad" in p and set(p) & set(sent) for p in encoder.passes)
                except asyncio.CancelledError:
                    assert leaves

            await asyncio.gather(*(caller(i) for i in range(len(callers))))
            assert await ask(batcher, "7") == ["7"]
            assert max(map(len, encoder.passes)) <= max_batch
            assert encoder.most_at_once == 1

    asyncio.run(scenario())
