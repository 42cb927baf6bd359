"""Objectives through a real server and real upstreams: who is chosen, why, and what they leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from semroute_service.cli import main
from semroute_service.ranking import EXPLORE_EVERY
from semroute_service.testing import running_server
from talkers import http, models, talkers
from upstream import (
    DONE,
    GENEROUS,
    Stream,
    Wait,
    answer,
    ask,
    chain,
    finish,
    nobody,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute import RouterClient

LONG = {"prompt_tokens": 11, "completion_tokens": 100_000}
"""So many tokens in one piece that only the time to the first one counts."""
FAST = answer(usage=LONG)
LATENCY = pb.Preferences(objective=pb.OBJECTIVE_LATENCY)
BEST = pb.Preferences(objective=pb.OBJECTIVE_QUALITY)


def slow(seconds: float) -> Stream:
    """A whole answer whose first token takes so long."""
    return stream(Wait(seconds), say("well"), finish(), {"choices": [], "usage": LONG}, DONE)


def speed(first_token: float, rate: float) -> dict[str, Any]:
    return {"first_token_seconds": first_token, "tokens_per_second": rate}


def price(usd: float) -> dict[str, Any]:
    return {"input": usd, "output": usd}


KINDS = {
    "first": {"price": price(5), "quality": 60, "speed": speed(0.2, 100)},
    "second": {"price": price(1), "quality": 40, "speed": speed(2, 50)},
    "third": {"price": price(3), "quality": 90, "speed": speed(4, 20)},
}
THREE = (answer(), answer(), answer())


def turn(decision: pb.Decision | None) -> list[str]:
    """Who is tried, in order."""
    assert decision
    return [decision.model, *decision.fallback_chain]


async def measured(client: RouterClient, *names: str) -> None:
    """Have each of them answer once."""
    for name in names:
        assert (await ask(client, preferences=pb.Preferences(model=name))).finish.model == name


async def best(client: RouterClient) -> str:
    return (await ask(client, preferences=LATENCY)).finish.model


# ---- who is chosen


@pytest.mark.parametrize(
    ("objective", "expected", "why"),
    [
        ("COST", ["second", "third", "first"], "(by cost: up to 0.0041 USD)"),
        (
            "LATENCY",
            ["first", "second", "third"],
            "(by latency: about 0.2 s to the first token and 100 tokens a second, as declared)",
        ),
        ("QUALITY", ["third", "first", "second"], "(by quality: quality 90)"),
        (
            "BALANCED",
            ["second", "first", "third"],
            "(by balanced: 0.61 of 1: cost 0.80, latency 0.59, quality 0.44)",
        ),
    ],
)
async def test_each_objective_orders_the_candidates(
    objective: str, expected: list[str], why: str
) -> None:
    """In Decide and in Complete alike; the reason names it with the figures of the chosen one,
    and every candidate has its own."""
    wish = pb.Preferences(objective=f"OBJECTIVE_{objective}")
    async with chain(*THREE, models=KINDS) as (client, _):
        decided = await client.decide("hello there", preferences=wish)
        told = await ask(client, preferences=wish)
    assert turn(decided) == turn(told.answer.decision) == expected
    assert told.finish.model == expected[0]
    assert [c.model for c in decided.candidates] == expected
    assert all(c.ranking for c in decided.candidates)
    assert decided.objective == wish.objective
    assert decided.reason.endswith(f"{expected[0]} (local) answers {why}.")
    assert decided.primary_model == "first"
    assert decided.fallback_depth == 0


async def test_without_an_objective_the_written_order_stands() -> None:
    """Whatever is declared, and nothing is said of figures."""
    async with chain(*THREE, models=KINDS) as (client, _):
        decided = await client.decide("hello there")
    assert turn(decided) == ["first", "second", "third"]
    assert decided.objective == pb.OBJECTIVE_UNSPECIFIED
    assert decided.reason.endswith("first (local) answers.")
    assert not any(c.ranking for c in decided.candidates)


async def test_a_profile_has_an_objective_of_its_own() -> None:
    """It holds for requests that name none, and for no others."""
    own: dict[str, Any] = {"models": KINDS, "behavior": {"objective": "cost"}}
    async with chain(*THREE, **own) as (client, _):
        decided = await client.decide("hello there")
        wished = await client.decide("hello there", preferences=BEST)
    assert (decided.model, decided.objective) == ("second", pb.OBJECTIVE_COST)
    assert (wished.model, wished.objective) == ("third", pb.OBJECTIVE_QUALITY)


async def test_a_model_that_the_caller_names_is_not_ranked() -> None:
    """There is nothing to order, and the reason says who named it."""
    named = pb.Preferences(model="second", objective=pb.OBJECTIVE_QUALITY)
    async with chain(*THREE, models=KINDS) as (client, _):
        decided = await client.decide("hello there", preferences=named)
    assert turn(decided) == ["second"]
    assert decided.objective == pb.OBJECTIVE_UNSPECIFIED
    assert "the caller named second" in decided.reason


# ---- what was measured


async def test_the_faster_one_is_chosen_until_it_is_slow() -> None:
    """By what calls have shown: the choice moves when the faster one has got slower."""
    async with chain(slow(0.25), (FAST, slow(0.6))) as (client, servers):
        await measured(client, "first", "second")
        decided = await client.decide("hello there", preferences=LATENCY)
        assert decided.model == "second"
        assert decided.reason.endswith(" tokens a second, measured over 1 call).")
        assert [await best(client) for _ in range(3)] == ["second", "second", "first"]
    assert [len(server.requests) for server in servers] == [2, 3]


async def test_measured_figures_go_before_declared_ones() -> None:
    """One that is declared fast and answers late is found out by one call."""
    boast = {"first": {"speed": speed(0.001, 10_000)}, "second": {"speed": speed(0.2, 10_000)}}
    async with chain(slow(0.5), FAST, models=boast) as (client, _):
        assert [await best(client) for _ in range(3)] == ["first", "second", "second"]


async def test_one_call_in_so_many_finds_out() -> None:
    """A model of which nothing is known is tried in its turn, once; then its figures decide. No
    session begins with it, since it would keep it."""
    async with chain(FAST, slow(0.3)) as (client, servers):
        assert {await best(client) for _ in range(EXPLORE_EVERY)} == {"first"}
        kept = await client.decide("hello there", preferences=LATENCY, session_id="s")
        assert kept.model == "first"
        decided = await client.decide("hello there", preferences=LATENCY)
        assert "second (local) answers (by latency: not measured yet, so" in decided.reason
        assert [await best(client) for _ in range(3)] == ["second", "first", "first"]
    assert len(servers[1].requests) == 1


METRICS = 'vllm:num_requests_waiting{engine="0"} %d\n'


async def test_a_queue_moves_the_choice() -> None:
    """A vLLM server that says that requests wait there is expected to be late, until none do."""
    kinds = {"first": {"speed": speed(0.2, 100)}, "second": {"speed": speed(0.5, 100)}}
    here = {name: {"/v1/models": models(f"{name}-id"), "/health": http(200)} for name in kinds}
    async with talkers(here) as up:
        made = profile(up["first"].url, up["second"].url, models=kinds)
        async with routed(made, probe_seconds=0.05) as client, asyncio.timeout(GENEROUS):

            async def chosen(waiting: int, until: str) -> pb.Decision:
                up["first"].answers = {
                    **here["first"],
                    "/metrics": http(200, METRICS % waiting),
                }
                while True:
                    decided = await client.decide("hello there", preferences=LATENCY)
                    if decided.model == until:
                        return decided
                    await asyncio.sleep(0.02)

            await chosen(0, "first")
            queued = (await chosen(4, "second")).candidates[1]
            assert (queued.model, queued.unavailable) == ("first", "")
            assert queued.ranking.endswith("as declared, 4 waiting there")
            await chosen(0, "first")


# ---- what no objective touches


async def test_an_objective_admits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback that is ranked first is still screened as a fallback, and denied as one."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    async with upstream() as first, upstream() as far:
        made = profile(
            first,
            far,
            backends={"second": {"provider": "deepseek"}},
            models={"first": {"quality": 1}, "second": {"quality": 100}},
            row={"fallback_to_cloud": False},
            governance={"allow_cloud": True},
        )
        async with routed(made) as client:
            told = await ask(client, preferences=BEST)
    decision = told.answer.decision
    assert decision
    assert (told.finish.model, decision.fallback_depth) == ("first", 1)
    assert [(c.model, c.rule) for c in decision.candidates] == [
        ("second", "fallback_to_cloud"),
        ("first", ""),
    ]
    assert far.requests == []


async def test_who_is_down_is_asked_last_all_the_same() -> None:
    """The best one keeps its rank, and the next one answers."""
    kinds = {"first": {"quality": 100}, "second": {"quality": 1}}
    async with upstream() as second, routed(profile(nobody(), second, models=kinds)) as client:
        decided = await client.decide("hello there", preferences=BEST)
    assert [c.model for c in decided.candidates] == ["first", "second"]
    assert turn(decided) == ["second", "first"]
    assert "second (local) answers (by quality: quality 1); not available: first" in decided.reason


@pytest.mark.parametrize("objective", ["COST", "LATENCY", "QUALITY", "BALANCED"])
async def test_a_pin_stands(objective: str) -> None:
    """The session's model comes first whatever is wished; those behind it are in the order of
    the wish, and the reason tells of the pin alone."""
    kinds = {**KINDS, "first": {**KINDS["first"], "price": price(9), "speed": speed(9, 9)}}
    kinds["first"]["quality"] = 10
    wish = pb.Preferences(objective=f"OBJECTIVE_{objective}")
    async with chain(*THREE, models=kinds) as (client, _):
        free = await client.decide("hello there", preferences=wish)
        assert free.model != "first"
        assert (await client.decide("hello there", session_id="s")).model == "first"
        held = await client.decide("hello there", preferences=wish, session_id="s")
    assert (held.model, held.pinned) == ("first", True)
    assert turn(held) == ["first", *[name for name in turn(free) if name != "first"]]
    assert held.reason.endswith("the session is pinned to first, so first (local) answers.")


# ---- what people see


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with (
        upstream() as one,
        running_server(profile=profile(one, one, models=KINDS)) as server,
    ):
        yield server.address


@pytest.mark.parametrize("command", ["decide", "complete"])
async def test_the_command_line_takes_every_objective(
    command: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And --explain shows it with each candidate's figures."""
    for word, figures in {
        "cost": "up to 0.0041 USD",
        "latency": "about 0.2 s to the first token",
        "quality": "quality 60",
        "balanced": " of 1: cost ",
    }.items():
        arguments = [command, "hello", "--objective", word, "--explain", "--server", address]
        assert await asyncio.to_thread(main, arguments) == 0
        out, err = capsys.readouterr()
        shown = dict(line.split(maxsplit=1) for line in (out + err).splitlines() if " " in line)
        assert shown["objective"] == word
        assert figures in " ".join((out + err).split("candidates\n")[1].split())
