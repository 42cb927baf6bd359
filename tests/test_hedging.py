"""A second candidate asked beside a slow first one: one answer, one winner, nothing unpaid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from semroute_service.ledger import Ledger
from upstream import (
    DONE,
    GENEROUS,
    USAGE,
    Behaviour,
    Cut,
    Status,
    Told,
    Wait,
    answer,
    ask,
    chain,
    failure,
    finish,
    outcome,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from pathlib import Path

HEDGED = {"hedge_after_seconds": 0.1, "timeout_seconds": 5}
SLOW = stream(Wait(1.0), say("slow"), finish())
DEAD = stream(Wait())


async def outcomes(*behaviours: Behaviour, **parts: Any) -> tuple[Told, list[int]]:
    """What a caller is told, and how often each upstream was asked."""
    async with chain(*behaviours, behavior=HEDGED, **parts) as (client, servers):
        told = await ask(client)
        return told, [len(server.requests) for server in servers]


async def test_the_faster_of_two_answers_and_the_other_is_let_go() -> None:
    """The caller hears one answer only; the slow upstream is left at once, and is on the record."""
    async with chain(DEAD, answer("fast"), behavior=HEDGED) as (client, servers):
        told = await ask(client)
        async with asyncio.timeout(1):
            await servers[0].requests[0].left.wait()
    assert (told.text, told.finish.model) == ("fast", "second")
    assert told.failures == [("first", "SEMROUTE_HEDGED")]
    assert told.finish.attempts[0].outcome == pb.ATTEMPT_OUTCOME_CANCELLED
    assert told.answer.restarts == 0


async def test_the_first_may_still_win() -> None:
    """A hedge that is slower than what it was to replace is the one that is let go."""
    told, asked = await outcomes(stream(Wait(0.3), say("first"), finish()), DEAD)
    assert (told.text, told.finish.model) == ("first", "first")
    assert told.failures == [("second", "SEMROUTE_HEDGED")]
    assert asked == [1, 1]


async def test_what_is_fast_is_not_hedged() -> None:
    """Nobody is asked twice where the first token comes in time, however long the rest takes."""
    told, asked = await outcomes(
        stream(say("a"), Wait(0.4), say("b"), finish()), answer("never heard")
    )
    assert told.text == "ab"
    assert asked == [1, 0]


async def test_without_the_setting_nothing_is_hedged() -> None:
    """A slow answer is waited for, and costs once."""
    async with chain(stream(Wait(0.4), say("slow"), finish()), answer()) as (client, servers):
        told = await ask(client)
    assert told.text == "slow"
    assert not servers[1].requests


async def test_who_won_is_told_where_the_answer_is_empty() -> None:
    """The model and the usage are the winner's, though the other one ended later."""
    told, _ = await outcomes(SLOW, stream(finish(), {"choices": [], "usage": USAGE}, DONE))
    assert (told.text, told.finish.model) == ("", "second")
    assert told.finish.usage.completion_tokens == USAGE["completion_tokens"]
    assert not told.finish.usage.estimated


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (finish("content_filter"), "CONTENT_FILTERED"),
        (failure("malformed", code=400), "UPSTREAM_INVALID_REQUEST"),
    ],
)
async def test_a_refusal_is_not_hedged_around(refusal: dict[str, Any], reason: str) -> None:
    """What would end an answer without a hedge ends it with one."""
    told, asked = await outcomes(stream(Wait(0.3), refusal), SLOW)
    assert told.error
    assert told.error.reason == reason
    assert told.failures[1] == ("second", "SEMROUTE_HEDGED")
    assert asked == [1, 1]


async def test_a_hedge_that_fails_leaves_the_first_alone() -> None:
    """The slow one goes on, and its answer stands."""
    told, _ = await outcomes(SLOW, Status(503))
    assert told.text == "slow"
    assert [outcome(a) for a in told.finish.attempts] == [
        ("second", "PROVIDER_UNAVAILABLE"),
        ("first", "OK"),
    ]


async def test_when_both_fail_the_third_is_asked() -> None:
    """A race that nobody wins is a failure like any other."""
    late = stream(Wait(0.3))
    told, asked = await outcomes(late, late, answer("third"))
    assert told.text == "third"
    assert {model for model, _ in told.failures} == {"first", "second"}
    assert asked == [1, 1, 1]


async def test_only_two_are_asked_at_once() -> None:
    """One hedge, not a crowd."""
    async with chain(DEAD, DEAD, answer(), behavior=HEDGED) as (client, servers):
        asking = asyncio.create_task(ask(client))
        await asyncio.sleep(0.6)
        assert [len(server.requests) for server in servers] == [1, 1, 0]
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def test_governance_holds_for_a_hedge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not leave the building is not sent to a cloud because somebody is slow."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    cloud = {"second": {"provider": "deepseek"}}
    told, asked = await outcomes(
        SLOW, answer("cloud"), backends=cloud, governance={"allow_cloud": False}
    )
    assert told.text == "slow"
    assert asked == [1, 0]


async def test_a_caller_who_leaves_beats_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """No attempt is on the record as let go for a faster one, where none was faster."""
    caplog.set_level("INFO", "semroute.routing")
    async with (
        upstream(DEAD) as first,
        upstream(DEAD) as second,
        routed(profile(first, second, behavior=HEDGED), debug_routing=True) as client,
    ):
        asking = asyncio.create_task(ask(client))
        async with asyncio.timeout(GENEROUS):
            while not (first.requests and second.requests):
                await asyncio.sleep(0.02)
            asking.cancel()
            while not caplog.records:
                await asyncio.sleep(0.02)
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    (record,) = [json.loads(r.getMessage()) for r in caplog.records if "semroute.routing" in r.name]
    assert [a["error_class"] for a in record["attempts"]] == ["caller_cancelled"] * 2


async def test_when_the_caller_leaves_both_are_left() -> None:
    """Neither upstream goes on generating for nobody."""
    async with chain(DEAD, DEAD, behavior=HEDGED) as (client, servers):
        asking = asyncio.create_task(ask(client))
        async with asyncio.timeout(GENEROUS):
            while not all(server.requests for server in servers):
                await asyncio.sleep(0.02)
        asking.cancel()
        async with asyncio.timeout(1):
            for server in servers:
                await server.requests[0].left.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def test_both_are_paid_for(tmp_path: Path) -> None:
    """What was asked may have cost: the one let go is settled by estimate, and finish adds up."""
    models = {n: {"price": {"input": 1, "output": 2}} for n in ("first", "second")}
    async with chain(DEAD, answer(), behavior=HEDGED, models=models, home=tmp_path) as (client, _):
        told = await ask(client)
        costs = [attempt.cost_nano_usd for attempt in told.finish.attempts]
        assert all(costs)
        assert told.finish.cost_nano_usd == sum(costs)
        deadline = time.monotonic() + GENEROUS
        ledger = Ledger(tmp_path / "ledger.sqlite3")
        with contextlib.closing(ledger):
            while ledger.spent("test") != sum(costs):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)


async def test_two_at_once_stay_within_the_callers_limit() -> None:
    """A hedge counts what the first may yet cost: where both do not fit, only one is asked."""
    models = {n: {"price": {"input": 1, "output": 2}} for n in ("first", "second")}
    limit = {"max_per_request": 1.5 * 4096 * 2_000 / 1e9}
    told, asked = await outcomes(SLOW, answer("fast"), models=models, cost=limit)
    assert told.text == "slow"
    assert ("second", "POLICY_DENIED") in told.failures
    assert asked == [1, 0]


async def test_who_lost_may_still_answer() -> None:
    """Where the winner breaks off and the caller allows a restart, the slower one is asked."""
    breaks = stream(say("half"), Cut())
    async with chain((DEAD, answer("whole")), breaks, behavior=HEDGED) as (client, servers):
        told = await ask(client, allow_restart=True)
    assert (told.error, told.text, told.finish.model) == (None, "whole", "first")
    assert told.failures == [("first", "SEMROUTE_HEDGED"), ("second", "PROVIDER_INTERRUPTED")]
    assert [len(server.requests) for server in servers] == [2, 1]


async def test_who_is_always_beaten_is_known_to_be_slow() -> None:
    """Being let go before its first token counts as slowness, so the ranking learns of it."""
    wishes = HEDGED | {"objective": "latency"}
    declared = {"speed": {"first_token_seconds": 0.05, "tokens_per_second": 50}}
    models = {"first": declared, "second": {"speed": {"first_token_seconds": 0.09}}}
    late = stream(Wait(0.02), say("second"), finish())
    async with chain(DEAD, late, behavior=wishes, models=models) as (client, servers):
        decisions = [(await ask(client)).answer.decision for _ in range(4)]
        chosen = [decision.model for decision in decisions if decision]
        first = next(
            model
            for backend in (await client.backends()).backends
            for model in backend.models
            if model.model == "first"
        )
    assert chosen[0] == "first"
    assert chosen[-1] == "second"
    assert first.time_to_first_token.p50.ToMilliseconds() >= 100
    assert len(servers[0].requests) < 4
