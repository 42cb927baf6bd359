"""Governance and money at every hop: who receives nothing, and what is booked whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from semroute import RouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.backends import Availability
from semroute_service.governance import DEFAULT_OUTPUT_TOKENS
from semroute_service.ledger import Ledger
from semroute_service.testing import running_server
from upstream import (
    DONE,
    GENEROUS,
    USAGE,
    Behaviour,
    Cut,
    Raw,
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
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOUD = {"second": {"provider": "deepseek"}}
OPEN: dict[str, Any] = {"backends": CLOUD, "governance": {"allow_cloud": True}}
"""A profile that lets its queries go to the cloud."""
COST = 11 * 1_000 + 7 * 2_000
"""What USAGE costs in nano-USD at the price of ``priced``."""
RESERVED = DEFAULT_OUTPUT_TOKENS * 2_000
"""What an answer of unknown length is expected to cost at least."""
LONG = {"prompt_tokens": 10, "completion_tokens": DEFAULT_OUTPUT_TOKENS}
BROKEN = stream(say("half"), Wait(0.2), Cut())

FAILURES: dict[str, Behaviour] = {
    "500": Status(500),
    "429": Status(429),
    "401": Status(401),
    "404": Status(404),
    "too long": Status(413),
    "malformed": Status(400),
    "filtered": Status(400, failure("content_filter")),
    "closed": Raw(),
    "silent": Wait(),
    "error inside": stream(failure("overloaded")),
    "broken": BROKEN,
}


def priced(*names: str) -> dict[str, Any]:
    """Models at one and two USD per million tokens: 1,000 and 2,000 nano-USD per token."""
    return {name: {"price": {"input": 1, "output": 2}} for name in names}


MONTH: dict[str, Any] = {"models": priced("first"), "cost": {"monthly_limit": 1.5 * RESERVED / 1e9}}
"""Enough for one answer that uses LONG."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cloud could be called; only governance keeps anyone from it."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")


@pytest.fixture
def spent(tmp_path: Path) -> Callable[[], int]:
    """What the ledger of a server whose home is ``tmp_path`` has booked, in nano-USD."""

    def read() -> int:
        ledger = Ledger(tmp_path / "ledger.sqlite3")
        try:
            return ledger.spent("test")
        finally:
            ledger.close()

    return read


async def becomes(read: Callable[[], int], expected: Callable[[int], bool]) -> int:
    """Wait until what ``read`` gives is as expected: settlement follows the last event."""
    async with asyncio.timeout(GENEROUS):
        while not expected(read()):
            await asyncio.sleep(0.02)
    return read()


WAYS_TO_STAY: dict[str, tuple[dict[str, Any], dict[str, Any], pb.Caller | None]] = {
    "the caller's local_only": ({"allow_cloud": True}, {}, pb.Caller(local_only=True)),
    "the profile's allow_cloud": ({"allow_cloud": False}, {}, None),
    "the row's allow_cloud": ({"allow_cloud": True}, {"allow_cloud": False}, None),
    "the row's fallback_to_cloud": ({"allow_cloud": True}, {"fallback_to_cloud": False}, None),
    "the caller's sensitivity": (
        {"allow_cloud": True},
        {},
        pb.Caller(sensitivity=pb.SENSITIVITY_CONFIDENTIAL),
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_STAY)
async def test_the_cloud_gets_nothing_whatever_fails_before_it(way: str) -> None:
    """A cloud upstream behind a failing local one receives no request where it may not see one."""
    governance, row, caller = WAYS_TO_STAY[way]
    parts: Any = {"governance": governance, "row": row, "behavior": {"timeout_seconds": 0.5}}
    failing = tuple(FAILURES.values())
    async with (
        upstream(*failing) as local,
        upstream() as cloud,
        upstream() as last,
        running_server(profile(local, cloud, last, backends=CLOUD, **parts)) as server,
        RouterClient(server.address) as client,
    ):
        assert server.server._router
        told = []
        for _ in FAILURES:  # each is met as the first
            server.server._router.backends.availability = Availability()
            told.append(await ask(client, caller=caller, allow_restart=True))
    assert len(local.requests) == len(FAILURES)
    assert not cloud.requests
    answered = [t.finish.model for t in told if not t.error]
    assert answered == ["third"] * (len(FAILURES) - 2)
    assert "second" not in {attempt.model for t in told for attempt in t.answer.attempts}


async def test_the_cloud_answers_where_it_may() -> None:
    """The same chain with the cloud allowed uses it, so the silence above is governance's."""
    async with chain(Status(500), answer(), **OPEN) as (client, (_, cloud)):
        told = await ask(client)
    assert told.finish.model == "second"
    assert cloud.requests[0].headers["authorization"] == "Bearer k"


async def test_nobody_is_asked_where_only_the_cloud_is_left() -> None:
    """When the last local candidate has failed the call fails; the cloud is no rescue."""
    async with chain(Status(500), answer(), backends=CLOUD) as (client, (_, cloud)):
        told = await ask(client)
    assert told.error
    assert told.error.reason == "BACKENDS_UNAVAILABLE"
    assert not cloud.requests


async def test_a_model_that_the_caller_names_is_screened() -> None:
    """Naming the cloud model does not open the door to it."""
    async with chain(answer(), answer(), backends=CLOUD) as (client, (_, cloud)):
        told = await ask(client, preferences=pb.Preferences(model="second"))
    assert told.error
    assert told.error.reason == "NO_COMPLIANT_MODEL"
    assert not cloud.requests


async def test_facts_are_taken_anew_at_every_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that goes away between decision and fallback denies the fallback, on the record."""
    async with chain(stream(Wait(0.5)), answer(), **OPEN) as (client, (local, cloud)):
        asking = asyncio.create_task(ask(client))
        async with asyncio.timeout(GENEROUS):
            while not local.requests:
                await asyncio.sleep(0.02)
        monkeypatch.delenv("DEEPSEEK_API_KEY")
        told = await asking
    assert told.failures == [("first", "PROVIDER_CONNECT"), ("second", "POLICY_DENIED")]
    assert not cloud.requests


async def test_an_answer_is_reserved_and_then_settled(
    tmp_path: Path, spent: Callable[[], int]
) -> None:
    """While the upstream works the most it may cost is booked; afterwards, what it did cost."""
    slow = stream(say("well"), Wait(0.5), finish(usage=USAGE), DONE)
    async with chain(slow, models=priced("first"), home=tmp_path) as (client, _):
        asking = asyncio.create_task(ask(client))
        await becomes(spent, lambda booked: booked >= RESERVED)
        told = await asking
        await becomes(spent, lambda booked: booked == COST)
    assert told.finish.cost_nano_usd == told.finish.attempts[0].cost_nano_usd == COST


@pytest.mark.parametrize("how", ["broken", "silent"])
async def test_a_failed_attempt_is_settled_by_estimate(
    tmp_path: Path, spent: Callable[[], int], how: str
) -> None:
    """What broke off, or was silent, may have cost something: it is estimated and never zero."""
    impatient = {"timeout_seconds": 0.5}
    async with chain(FAILURES[how], models=priced("first"), behavior=impatient, home=tmp_path) as (
        client,
        _,
    ):
        told = await ask(client)
        cost = told.answer.attempts[0].cost_nano_usd
        assert 0 < cost < RESERVED
        await becomes(spent, lambda booked: booked == cost)


@pytest.mark.parametrize("how", ["500", "429", "401", "404", "malformed", "closed"])
async def test_a_refusal_costs_nothing(tmp_path: Path, spent: Callable[[], int], how: str) -> None:
    """An upstream that refused has not been paid, and the reservation is given back."""
    async with chain(FAILURES[how], models=priced("first"), home=tmp_path) as (client, _):
        told = await ask(client)
        assert told.error
        await becomes(spent, lambda booked: booked == 0)


async def test_finish_adds_up_what_all_attempts_cost(
    tmp_path: Path, spent: Callable[[], int]
) -> None:
    """A restart is paid for twice, and finish says so."""
    models = priced("first", "second")
    async with chain(BROKEN, answer(), models=models, home=tmp_path) as (client, _):
        told = await ask(client, allow_restart=True)
        costs = [attempt.cost_nano_usd for attempt in told.finish.attempts]
        assert all(costs)
        assert told.finish.cost_nano_usd == sum(costs)
        await becomes(spent, lambda booked: booked == sum(costs))


@pytest.mark.parametrize(
    "behaviour", [Wait(), stream(say("half"), Wait())], ids=["before", "within"]
)
async def test_when_the_caller_leaves_the_attempt_is_settled(
    tmp_path: Path, spent: Callable[[], int], behaviour: Behaviour
) -> None:
    """What a caller who left has used is booked by estimate: not the reservation, not nothing."""
    async with chain(behaviour, models=priced("first"), home=tmp_path) as (client, (server,)):
        asking = asyncio.create_task(ask(client))
        await becomes(spent, lambda booked: booked >= RESERVED)
        async with asyncio.timeout(GENEROUS):
            while not server.requests:
                await asyncio.sleep(0.02)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert await becomes(spent, lambda booked: booked < RESERVED) > 0


async def test_a_reservation_whose_caller_left_meanwhile_is_given_back(tmp_path: Path) -> None:
    """Even a caller who leaves while the ledger is busy leaves nothing booked behind, nor on its
    session."""
    async with chain(answer(), models=priced("first"), home=tmp_path) as (client, (server,)):
        other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ask(client, session_id="s"), 0.5)
            await asyncio.sleep(0.2)
            other.execute("ROLLBACK")
            entries = "SELECT settled FROM entries"
            async with asyncio.timeout(GENEROUS):
                while other.execute(entries).fetchall() != [(0,)]:
                    await asyncio.sleep(0.02)
        assert (await client.end_session("s")).cost_nano_usd == 0
    assert not server.requests


async def test_an_exhausted_month_ends_in_budget_exceeded() -> None:
    """When the month's money is spent, the caller hears of the budget and no upstream is called."""
    async with chain(answer(usage=LONG), **MONTH) as (client, (server,)):
        told = await asyncio.gather(*(ask(client) for _ in range(6)))
    errors = [t.error for t in told if t.error]
    assert len(errors) == 5
    assert {f"{e.code.name} {e.reason}" for e in errors} == {"RESOURCE_EXHAUSTED BUDGET_EXCEEDED"}
    assert all(e.retry_after and e.violations[0].subject == "profile:test" for e in errors)
    assert len(server.requests) == 1


async def test_an_exhausted_month_leaves_what_is_free() -> None:
    """A local model that costs nothing still answers when the money is gone."""
    async with chain(answer(usage=LONG), answer(), **MONTH) as (client, _):
        told = [await ask(client) for _ in range(2)]
    assert [t.finish.model for t in told] == ["first", "second"]


async def limited(
    share: float, kind: str = "max_per_request", **options: Any
) -> tuple[Told, list[int | None]]:
    """What comes of a dear first and a free second under a limit that pays for such a share of an
    answer of unknown length, and what the first was asked to write at most."""
    parts: dict[str, Any] = {"models": priced("first"), "cost": {kind: share * RESERVED / 1e9}}
    async with chain(answer(), answer(), **parts) as (client, (dear, _)):
        told = await ask(client, **options)
    return told, [request.body.get("max_tokens") for request in dear.requests]


async def test_max_per_request_denies_what_is_too_dear() -> None:
    """A candidate whose answer might cost more is denied, and the next one answers."""
    told, asked = await limited(0.9)
    assert (told.finish.model, asked) == ("second", [])
    assert told.answer.decision
    assert told.answer.decision.candidates[0].rule == "max_cost"


@pytest.mark.parametrize("kind", ["max_per_request", "monthly_limit"])
async def test_limited_money_limits_the_length(kind: str) -> None:
    """An admitted candidate is asked for no more tokens than what was reserved pays for."""
    told, (most,) = await limited(5, kind)
    assert told.finish.model == "first"
    assert most
    assert most * 2_000 <= RESERVED


CHEAP = pb.Preferences(max_cost_nano_usd=100_000)


async def test_the_lower_of_two_limits_holds() -> None:
    """A caller who wants to pay less than the profile would allow gets what is cheaper."""
    told, _ = await limited(5, preferences=CHEAP)
    assert told.finish.model == "second"


async def test_a_length_that_the_caller_gave_is_sent_as_it_is() -> None:
    """A short answer of the same model fits into the same limit."""
    told, asked = await limited(5, preferences=CHEAP, sampling=pb.Sampling(max_tokens=20))
    assert (told.finish.model, asked) == ("first", [20])


BIG = json.dumps(
    {"type": "object", "properties": {f"field_{i}": {"description": "x" * 90} for i in range(99)}}
)
"""A schema of more than 9,000 characters."""
LARGE: dict[str, dict[str, Any]] = {
    "tools": {"tools": [pb.Tool(name="t", parameters_schema=BIG)]},
    "schema": {
        "response_format": pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA, schema=BIG)
    },
}


@pytest.mark.parametrize("kind", LARGE)
async def test_what_stands_beside_the_messages_costs_as_well(kind: str) -> None:
    """Tools and schemas are a part of the prompt: for its price, and for the context."""
    able = {"capabilities": ["tools", "json_schema"]}
    for models, rule in (
        ({"first": {"price": {"input": 1, "output": 2}, **able}}, "max_cost"),
        ({"first": {"context": 2048, "price": {"input": 0, "output": 0}, **able}}, "context_len"),
    ):
        async with chain(answer(), answer(), models=models | {"second": able}) as (client, _):
            wanted = {"preferences": pb.Preferences(max_cost_nano_usd=1_000_000), **LARGE[kind]}
            told = await ask(client, "?", sampling=pb.Sampling(max_tokens=20), **wanted)
        assert told.error is None
        assert told.answer.decision
        assert told.answer.decision.candidates[0].rule.startswith(rule)
        assert told.finish.model == "second"


async def test_thinking_has_its_place_beside_the_answer() -> None:
    """What a model thinks with is reserved on top, and is not taken from the answer."""
    thinks = {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 8_000}}}
    first = priced("first")["first"] | thinks
    limit = {"monthly_limit": 100}
    async with chain(answer(), answer(), models={"first": first}, cost=limit) as (client, servers):
        told = await ask(client)
        assert told.answer.decision
        expected = told.answer.decision.candidates[0].estimated_cost_nano_usd
        assert expected >= (DEFAULT_OUTPUT_TOKENS + 8_000) * 2_000
        (request,) = servers[0].requests
        assert request.body["max_tokens"] == DEFAULT_OUTPUT_TOKENS + 8_000
        told = await ask(client, sampling=pb.Sampling(max_tokens=1_000))
        assert told.answer.decision
        ruling = told.answer.decision.candidates[0]
    assert (ruling.rule, told.finish.model) == ("parameters", "second")
    assert ruling.reason == "max_tokens of 1000 leaves no answer beside 8000 tokens of thinking"


async def test_attempts_share_the_limit_of_their_request() -> None:
    """What a broken attempt has cost is no longer there for the next one."""
    # The few tokens of the question cost more than a million nano-USD, the limit leaves 1.5.
    models = {name: {"price": {"input": 100, "output": 2}} for name in ("first", "second")}
    parts: dict[str, Any] = {
        "models": models,
        "cost": {"max_per_request": (RESERVED + 1.5e6) / 1e9},
    }
    async with chain(BROKEN, answer(), answer(), **parts) as (client, (_, second, _)):
        told = await ask(client, allow_restart=True)
    assert [outcome(attempt) for attempt in told.finish.attempts] == [
        ("first", "PROVIDER_INTERRUPTED"),
        ("second", "POLICY_DENIED"),
        ("third", "OK"),
    ]
    assert not second.requests
