"""What an answer waits for, and for how long: Retry-After, the deadline's shares, the clocks."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from upstream import (
    DONE,
    GENEROUS,
    Behaviour,
    Status,
    Told,
    Wait,
    answer,
    ask,
    chain,
    failure,
    finish,
    outcome,
    say,
    stream,
)

RETRYING = {"max_retries": 1}


def busy(seconds: float) -> Status:
    """An upstream that asks to be left alone for so long."""
    return Status(429, headers={"retry-after": str(seconds)})


async def tell(*behaviours: Behaviour, behavior: Any = None, **options: Any) -> Told:
    """What a caller is told where the upstreams behave like this."""
    async with chain(*behaviours, behavior=behavior or {}) as (client, _):
        return await ask(client, **options)


async def test_a_long_wait_is_sat_out_where_nobody_else_is_ready() -> None:
    """More than two seconds are waited where the deadline allows and there is no other way."""
    async with chain((busy(2.4), answer("late")), behavior=RETRYING) as (client, (server,)):
        told = await ask(client)
    assert told.text == "late"
    assert server.requests[1].at - server.requests[0].at >= 2.3


async def test_a_long_wait_is_not_sat_out_where_another_is_ready() -> None:
    """The next candidate answers meanwhile, and the busy one is asked once."""
    async with chain((busy(20), answer()), answer("other"), behavior=RETRYING) as (client, servers):
        async with asyncio.timeout(GENEROUS):
            told = await ask(client)
    assert told.text == "other"
    assert len(servers[0].requests) == 1


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    """The caller hears at once, with how long to wait, instead of losing its time."""
    async with asyncio.timeout(GENEROUS):
        told = await tell(busy(20), behavior=RETRYING, timeout=15)
    assert told.error
    assert told.error.code is grpc.StatusCode.UNAVAILABLE
    assert told.error.retry_after == pytest.approx(20, abs=0.5)


async def test_when_all_are_busy_the_one_that_is_ready_first_is_asked_again() -> None:
    """The shorter of two waits is sat out."""
    async with chain(
        (busy(25), answer("first")), (busy(2.3), answer("second")), behavior=RETRYING
    ) as (client, servers):
        told = await ask(client)
    assert told.text == "second"
    assert [len(server.requests) for server in servers] == [1, 2]


async def test_each_candidate_gets_its_share_of_the_deadline() -> None:
    """A silent first one does not eat the time of those behind it."""
    told = await tell(Wait(), Wait(), answer("third"), timeout=3)
    assert told.text == "third"
    assert told.failures == [("first", "PROVIDER_TIMEOUT"), ("second", "PROVIDER_TIMEOUT")]
    first, second, _ = (a.duration.ToTimedelta().total_seconds() for a in told.finish.attempts)
    assert 0.5 < first < 1.5
    assert 0.5 < second < 1.6


async def test_a_share_ends_with_the_first_token() -> None:
    """An answer that has begun may take all that is left of the deadline."""
    slow = stream(say("a"), Wait(1.2), say("b"), finish())
    told = await tell(slow, answer("never heard"), timeout=2)
    assert told.text == "ab"


async def test_impatient_callers_do_not_spoil_a_backend_for_others() -> None:
    """A backend that had no time to answer is not blamed for it."""
    slow = stream(Wait(0.4), say("well"), finish())
    async with chain(slow) as (client, _):
        for _ in range(4):
            told = await ask(client, timeout=0.2)
            assert told.error
        assert (await ask(client)).text == "well"


@pytest.mark.parametrize(
    ("clocks", "behaviour"),
    [
        ({"headers": 0.3}, Wait()),
        ({"first_token": 0.3}, stream(*(b": alive\n\n", Wait(0.1)) * 99)),
        ({"idle_bytes": 0.3}, stream(b": alive\n\n", Wait())),
        ({"total": 0.3}, stream(b": alive\n\n", Wait())),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_every_clock_before_the_first_token(clocks: Any, behaviour: Behaviour) -> None:
    """Each limit, being the only short one, ends the attempt, and the next one answers."""
    async with asyncio.timeout(GENEROUS):
        told = await tell(behaviour, answer("well"), behavior={"clocks": clocks})
    assert told.text == "well"
    assert told.failures == [("first", "PROVIDER_TIMEOUT")]


@pytest.mark.parametrize("clock", ["idle_tokens", "idle_bytes", "total"])
async def test_every_clock_after_the_first_token(clock: str) -> None:
    """Silence within an answer ends it as an interruption; keep-alives are no tokens."""
    alive = clock != "idle_bytes"
    steps = (b": alive\n\n", Wait(0.1)) * 99 if alive else (Wait(),)
    async with asyncio.timeout(GENEROUS):
        told = await tell(stream(say("half"), *steps), behavior={"clocks": {clock: 0.4}})
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.failures == [("first", "PROVIDER_TIMEOUT")]


async def test_keep_alives_hold_the_byte_clock() -> None:
    """A backend that says now and then that it is alive may think as long as the tokens' clock."""
    thinking = stream(*(b": alive\n\n", Wait(0.1)) * 8, say("well"), finish(), DONE)
    assert (await tell(thinking, behavior={"clocks": {"idle_bytes": 0.5}})).text == "well"


async def test_what_is_too_long_goes_to_longer_contexts_only() -> None:
    """A model that holds no more than the one that refused is not asked in vain."""
    contexts = {"first": 8_000, "second": 8_000, "third": 32_000}
    models = {name: {"context": tokens} for name, tokens in contexts.items()}
    refused = Status(400, failure("maximum context length exceeded"))
    async with chain(refused, answer(), answer("third"), models=models) as (client, servers):
        told = await ask(client)
    assert told.text == "third"
    assert [len(server.requests) for server in servers] == [1, 0, 1]


@pytest.mark.parametrize("reroute", [True, False])
async def test_a_content_filter_is_routed_around_only_where_the_profile_says_so(
    reroute: bool,
) -> None:
    """By default a refusal stands; with reroute_filtered the next candidate is asked."""
    refused = Status(400, failure("no", code="content_filter"))
    told = await tell(refused, answer("other"), behavior={"reroute_filtered": reroute})
    if reroute:
        assert [outcome(a) for a in told.finish.attempts] == [
            ("first", "POLICY_CONTENT_FILTER"),
            ("second", "OK"),
        ]
    else:
        assert told.error
        assert told.error.reason == "CONTENT_FILTERED"


async def test_when_every_filter_refuses_the_caller_hears_of_the_filter() -> None:
    """Rerouted in vain, it is still the content that was refused."""
    refused = Status(400, failure("no", code="content_filter"))
    told = await tell(refused, refused, behavior={"reroute_filtered": True})
    assert told.error
    assert told.error.reason == "CONTENT_FILTERED"
