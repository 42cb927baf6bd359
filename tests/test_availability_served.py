"""What is known of backends counts in every decision: through a real server and real upstreams."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from semroute import RouterClient
from semroute.v1 import profile_pb2, profile_pb2_grpc
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import running_server
from talkers import http, models, silence, talkers
from upstream import (
    GENEROUS,
    Cut,
    Status,
    Wait,
    answer,
    ask,
    chain,
    finish,
    nobody,
    outcome,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Seen:
    """What a decision says of availability."""

    model: str
    against: dict[str, str]
    chain: list[str]
    depth: int
    reason: str


def seen(decision: pb.Decision | None) -> Seen:
    assert decision
    against = {c.model: c.unavailable for c in decision.candidates if c.unavailable}
    chain = list(decision.fallback_chain)
    return Seen(decision.model, against, chain, decision.fallback_depth, decision.reason)


async def backends(client: RouterClient) -> dict[str, profile_pb2.BackendStatus]:
    return {status.backend: status for status in (await client.backends()).backends}


DOWN = "did not answer its last check: it cannot be reached"


async def test_who_is_known_to_be_down_is_not_chosen() -> None:
    """The next candidate is, in Decide and in Complete alike, and both say why; the one that is
    down stands last in the chain and is not called."""
    async with upstream() as second, routed(profile(nobody(), second)) as client:
        decided = seen(await client.decide("hello there"))
        told = await ask(client)
    assert (decided.model, decided.chain, decided.depth) == ("second", ["first"], 1)
    assert decided.against == {"first": DOWN}
    assert decided.reason.endswith(f"second (local) answers; not available: first ({DOWN}).")
    assert seen(told.answer.decision) == decided
    assert [outcome(a) for a in told.finish.attempts] == [("second", "OK")]


async def test_who_is_down_is_asked_where_nobody_else_is_left() -> None:
    """A check can be wrong; and the decision says what is known."""
    async with routed(profile(nobody())) as client:
        decided = seen(await client.decide("hello there"))
        assert (decided.model, decided.depth) == ("first", 0)
        assert decided.reason.endswith(f"first (local) answers, the best that is left ({DOWN}).")
        assert (await ask(client)).failures == [("first", "PROVIDER_CONNECT")]


async def test_who_comes_back_is_chosen_again() -> None:
    """A server that was down, and circuit-broken, takes its place when a check finds it."""
    url = nobody()
    async with (
        upstream() as second,
        routed(profile(url, second), probe_seconds=0.05) as client,
    ):
        only_first = pb.Preferences(model="first")
        for _ in range(4):
            assert (await ask(client, preferences=only_first)).error
        (status,) = (await backends(client))["first"].models
        assert status.circuit == profile_pb2.CIRCUIT_OPEN
        assert (status.calls, status.failures) == (3, 3)
        async with (
            upstream(models=("first-id",), port=int(url.split(":")[2][:-3])),
            asyncio.timeout(GENEROUS),
        ):
            while seen(await client.decide("hello there")).model != "first":
                await asyncio.sleep(0.05)
            assert (await ask(client)).finish.model == "first"


async def test_an_outage_of_fifteen_requests() -> None:
    """All are answered, and the dead primary is tried a handful of times."""
    async with chain(Status(503), answer(), behavior={"max_retries": 2}) as (client, servers):
        told = [await ask(client) for _ in range(15)]
        decided = seen(await client.decide("hello there"))
        (status,) = (await backends(client))["first"].models
    assert [t.finish.model for t in told] == ["second"] * 15
    assert len(servers[0].requests) <= 5
    assert decided.model == "second"
    assert decided.against == {"first": "failed 3 times in a row"}
    assert status.ready_in.ToMicroseconds() > 0


async def test_answers_that_break_off_count() -> None:
    """A backend that begins well and never ends is left alone like one that does not begin."""
    broken = stream(say("half"), Wait(0.05), Cut())
    async with chain(broken, answer()) as (client, servers):
        for _ in range(6):
            assert (await ask(client, allow_restart=True)).finish.model == "second"
        assert len(servers[0].requests) == 3


async def test_what_callers_do_wrong_does_not_count() -> None:
    """Malformed and overlong requests, and callers who leave, are held against nobody."""
    faults = (Status(400), Status(413), Status(422)) * 3
    forever = stream(say("word"), Wait())
    async with chain((*faults, *[forever] * 4, answer())) as (client, (first,)):
        for _ in faults:
            assert (await ask(client)).error
        for left in range(4):
            async with client.complete("hello there") as half:
                async for _ in half:
                    break
            async with asyncio.timeout(GENEROUS):
                await first.requests[len(faults) + left].left.wait()
        assert (await ask(client)).finish.model == "first"
        (status,) = (await backends(client))["first"].models
    assert status.failures == 0
    assert status.circuit == profile_pb2.CIRCUIT_CLOSED


async def test_a_rate_limited_model_is_passed_over() -> None:
    """Until the time that it named, and without a call to find out."""
    limited = Status(429, headers={"retry-after": "30"})
    async with chain((limited, answer()), answer()) as (client, servers):
        for _ in range(3):
            assert (await ask(client)).finish.model == "second"
        decided = seen(await client.decide("hello there"))
    assert len(servers[0].requests) == 1
    assert decided.against == {"first": "asked to be left alone for a while"}


async def test_a_refused_key_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again for another model of the same server either, until there is a new one."""
    monkeypatch.setenv("VLLM_API_KEY", "old")
    async with (
        upstream(Status(401), answer()) as server,
        routed(profile(server, server, nobody())) as client,
    ):
        for _ in range(3):
            told = await ask(client)
            assert told.error
        assert told.answer.decision
        assert seen(told.answer.decision).against == {
            "first": "vllm refused the key",
            "second": "vllm refused the key",
            "third": DOWN,
        }
        assert len(server.requests) == 1
        monkeypatch.setenv("VLLM_API_KEY", "new")
        assert (await ask(client)).finish.model == "first"
        assert server.requests[1].headers["authorization"] == "Bearer new"


async def test_a_model_that_the_server_does_not_list() -> None:
    """It is asked after others; a model that is listed under its tag is there."""
    named = {"first": {"id": "absent"}, "second": {"id": "there"}}
    async with (
        upstream(models=("there:latest",)) as server,
        routed(profile(server, server, models=named)) as client,
    ):
        decided = seen(await client.decide("hello there"))
    assert (decided.model, decided.depth) == ("second", 1)
    assert decided.against == {"first": "the server does not list absent"}


async def test_of_who_is_denied_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ruling is a ruling, and availability is no part of it."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    cloud = {"first": {"provider": "deepseek"}}
    async with (
        upstream(Status(401), answer()) as server,
        upstream() as second,
        routed(profile(server, second, backends=cloud, governance={"allow_cloud": True})) as client,
    ):
        assert (await ask(client)).finish.model == "second"
        assert seen(await client.decide("hello there")).against
        denied = await client.decide("hello there", caller=pb.Caller(local_only=True))
    assert [(c.rule, c.unavailable) for c in denied.candidates] == [("local_only", ""), ("", "")]
    assert "not available" not in denied.reason


async def test_a_pinned_model_that_is_down() -> None:
    """The session's own model steps back while it is down, and the pin stays."""
    here, gone = {"/v1/models": models("first-id")}, {"/v1/models": http(503)}
    async with upstream() as second, talkers({"first": here}) as up:
        made = profile(up["first"].url, second)
        async with routed(made, probe_seconds=0.05) as client, asyncio.timeout(GENEROUS):
            assert seen(await client.decide("hello", session_id="s")).model == "first"
            up["first"].answers = gone
            while (now := seen(await client.decide("hello", session_id="s"))).model == "first":
                await asyncio.sleep(0.05)
            assert "pinned to first, which is not available this time, so second" in now.reason
            up["first"].answers = here
            while (await client.decide("hello", session_id="s")).model != "first":
                await asyncio.sleep(0.05)


async def test_a_cloud_is_never_contacted_by_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its answers to calls alone, and is counted by them."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    async with talkers({"cloud": {}}) as up, upstream() as local:
        made = profile(
            local,
            up["cloud"].url,
            backends={"second": {"provider": "deepseek"}},
            governance={"allow_cloud": True},
        )
        async with routed(made, probe_seconds=0.02) as client, asyncio.timeout(GENEROUS):
            while local.listed < 3:
                await asyncio.sleep(0.02)
            assert up["cloud"].asked == []
            status = (await backends(client))["second"]
            assert (status.health, status.local) == (profile_pb2.HEALTH_UNSPECIFIED, False)
            assert not status.HasField("checked_at")
            assert (await ask(client, preferences=pb.Preferences(model="second"))).error
            (model,) = (await backends(client))["second"].models
            assert (model.calls, model.failures) == (1, 1)


async def test_checks_hold_nothing_up() -> None:
    """Many servers that say nothing are asked at once, and a server starts all the same."""
    async with talkers({f"s{i}": {"/health": silence} for i in range(3)}) as up:
        made = profile(*(talker.url for talker in up.values()))
        start = time.monotonic()
        async with routed(made) as client:
            assert time.monotonic() - start < GENEROUS / 2
            problems = {s.problem for s in (await backends(client)).values()}
    assert problems == {"does not answer in time"}


METRICS = '# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine="0"} %s\n'


async def test_what_is_known_of_backends() -> None:
    """Health, queue, circuits, counts and speeds of a profile's backends, by name."""
    well = {
        "/health": http(200),
        "/v1/models": models("second-id"),
        "/metrics": http(200, METRICS % "4.0"),
    }
    whole = stream(say("word " * 20), Wait(0.02), finish())
    async with (
        talkers({"it": well}) as up,
        upstream(whole) as third,
        routed(profile(nobody(), up["it"].url, third)) as client,
    ):
        assert (await ask(client, preferences=pb.Preferences(model="third"))).finish
        found = await client.backends("test")
    first, second, last = found.backends
    assert (found.profile, first.backend, second.provider) == ("test", "first", "vllm")
    assert (first.health, first.problem) == (profile_pb2.HEALTH_DOWN, "cannot be reached")
    assert not first.HasField("waiting")
    assert (second.health, second.problem, second.waiting) == (profile_pb2.HEALTH_UP, "", 4)
    assert second.HasField("checked_at")
    (model,) = last.models
    assert (model.model, model.calls, model.failures) == ("third", 1, 0)
    assert model.circuit == profile_pb2.CIRCUIT_CLOSED
    assert not model.HasField("ready_in")
    assert model.time_to_first_token.count == 1
    p50, p95 = model.time_to_first_token.p50, model.time_to_first_token.p95
    assert 0 < p50.ToMicroseconds() == p95.ToMicroseconds()
    assert model.tokens_per_second > 0
    assert not second.models[0].HasField("time_to_first_token")


async def test_detection_and_the_server_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DetectResources finds of profiles that are not in use is known from then on; a cloud's
    server at an address of its own is still known by its answers to calls alone."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    cloud: dict[str, Any] = {
        "backends": {"first": {"provider": "deepseek"}},
        "governance": {"allow_cloud": True},
    }
    profiles = {"test": profile(nobody()), "cloud": profile(nobody(), **cloud)}
    async with (
        upstream(models=("m",)) as here,
        running_server(profiles={**profiles, "third": profile(here)}) as server,
        RouterClient(server.address) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        (before,) = (await client.backends("third")).backends
        assert before.health == profile_pb2.HEALTH_UNSPECIFIED
        stub = profile_pb2_grpc.ProfileServiceStub(channel)
        detected = await stub.DetectResources(profile_pb2.DetectResourcesRequest())
        answers = {p.profile: p.answers for p in detected.resources.backends}
        assert answers == {"test": False, "cloud": False, "third": True}
        health = {name: (await client.backends(name)).backends[0].health for name in answers}
    assert health == {
        "test": profile_pb2.HEALTH_DOWN,
        "cloud": profile_pb2.HEALTH_UNSPECIFIED,
        "third": profile_pb2.HEALTH_UP,
    }
