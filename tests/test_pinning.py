"""Sessions through a real server: what they hold still, and what alone can move it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.profile import Behavior
from semroute_service.testing import ECHO_PROFILE, running_server
from upstream import (
    GENEROUS,
    USAGE,
    Behaviour,
    Cut,
    Status,
    Wait,
    answer,
    ask,
    chain,
    failure,
    nobody,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute_service.testing import RunningServer

EASY = "write a python script"
HARD = "design and write a distributed scheduler in python with retries"
BIOLOGY = "what does this gene do"
NOTHING = "tell me a joke"
SECRET = "the-session-of-ada"
LOCAL = pb.Caller(local_only=True)
PRICED = {"price": {"input": 1, "output": 2}}
COST = USAGE["prompt_tokens"] * 1_000 + USAGE["completion_tokens"] * 2_000
"""What one answer costs at that price, in nano-USD."""
ECHO = {"provider": "echo"}


@contextlib.asynccontextmanager
async def two_profiles(
    *behaviours: Behaviour,
) -> AsyncIterator[tuple[RouterClient, RunningServer]]:
    """A client of a server on north, whose first and second are upstreams; south echoes."""
    async with upstream(*behaviours) as first, upstream() as second:
        profiles = {"north": profile(first, second), "south": ECHO_PROFILE}
        async with (
            running_server(profiles=profiles, active="north") as server,
            RouterClient(server.address) as client,
        ):
            yield client, server


def ran_on(decision: pb.Decision | None) -> tuple[str, str, str, str]:
    """All that a session holds still."""
    assert decision
    revisions = decision.profile_revision, decision.utterances_revision
    return (decision.profile, *revisions, decision.model)


# ---- profiles


async def test_a_session_stays_on_its_profile() -> None:
    """Another profile may be active by now: the session decides and answers on its own."""
    async with two_profiles() as (client, _):
        before = ran_on(await client.decide(EASY, session_id="s"))
        await client.activate_profile("south")
        assert ran_on(await client.decide(EASY, session_id="s")) == before
        told = await ask(client, EASY, session_id="s")
        assert (ran_on(told.answer.decision), told.text) == (before, "well")
        for other in ("t", ""):
            assert (await client.decide(EASY, session_id=other)).profile == "south"
        await client.end_session("s")
        assert (await client.decide(EASY, session_id="s")).profile == "south"


async def test_a_session_stays_on_its_revision() -> None:
    """Where a profile was replaced under its name, a session answers by the one that it knew."""
    async with two_profiles(Status(500), answer()) as (client, server):
        before = ran_on(await client.decide(EASY, session_id="s"))
        store = server.server._profiles
        north = store.get("north")
        newer = replace(north, revision="newer", models={}, behavior=Behavior(max_retries=2))
        store._profiles["north"] = newer
        store.activate("north")
        told = await ask(client, EASY, session_id="s")
        assert ran_on(told.answer.decision) == before
        assert [a.model for a in told.finish.attempts] == ["first", "second"]  # without a retry
        kept = await client.decide(EASY, profile="north", session_id="s")
        assert kept.profile_revision == north.revision


async def test_the_backends_of_a_session_are_watched() -> None:
    """An optional backend that comes back serves a session whose profile is not active any more."""
    url = nobody()
    absent = profile(url, "http://127.0.0.1:9/v1", backends={"first": {"optional": True}})
    profiles = {"north": absent, "south": ECHO_PROFILE}
    async with (
        running_server(profiles=profiles, active="north", probe_seconds=0.05) as server,
        RouterClient(server.address) as client,
    ):
        before = await client.decide(EASY, session_id="s")
        assert [c.rule for c in before.candidates] == ["not_running", ""]
        await client.activate_profile("south")
        async with upstream(models=("m",), port=int(url.split(":")[2].split("/")[0])):
            async with asyncio.timeout(GENEROUS):
                while (await client.decide(EASY, session_id="s")).candidates[1].rule:
                    await asyncio.sleep(0.05)


async def test_a_session_begins_on_the_profile_that_is_named() -> None:
    """And stays there when later requests name none."""
    async with two_profiles() as (client, _):
        assert (await client.decide(EASY, session_id="s", profile="south")).profile == "south"
        assert (await client.decide(EASY, session_id="s")).profile == "south"


async def test_a_session_refuses_another_profile() -> None:
    """The error says which profile the session runs on; no pin of it is touched."""
    async with two_profiles() as (client, _):
        await client.decide(EASY, session_id=SECRET)
        for other in ("south", "nowhere"):
            with pytest.raises(RouterError) as caught:
                await client.decide(EASY, session_id=SECRET, profile=other)
            error = caught.value
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [v.subject for v in error.violations] == ["profile"]
            assert "the session runs on north" in error.message
            assert SECRET not in error.message
        assert (await client.decide(EASY, session_id=SECRET)).pinned
        ended = await client.end_session(SECRET)
        assert (ended.requests, ended.errors) == (4, 2)


# ---- models

ROWS: dict[str, Any] = {
    "models": dict.fromkeys(("small", "large", "bio"), ECHO),
    "routes": {
        "code_generation": {"tiers": {"low": ["small"], "high": ["large"]}},
        "biomedical": {"model": "bio", "fallback_chain": ["small"]},
        "default": {"model": "large"},
    },
}


async def test_every_task_keeps_the_model_that_it_first_got() -> None:
    """Whatever the tier, and queries near to no task as well."""
    async with routed(ROWS) as client:
        asked = [EASY, HARD, BIOLOGY, NOTHING, EASY, NOTHING]
        first, *rest = [await client.decide(query, session_id="s") for query in asked]
        assert (first.model, first.pinned) == ("small", False)
        assert [d.model for d in rest] == ["small", "bio", "large", "small", "large"]
        assert [d.pinned for d in rest] == [True, False, False, True, True]
        hard = rest[0]
        assert (hard.classification.tier, hard.primary_model) == (pb.TIER_HIGH, "large")
        assert [c.model for c in hard.candidates] == ["small", "large"]
        assert "the session is pinned to small, so small (local) answers" in hard.reason
        assert (await client.decide(HARD)).model == "large"


async def test_tenants_do_not_share_pins() -> None:
    """The same id from another tenant is a session of its own, and ends alone."""
    async with routed(ROWS) as client:
        mine, theirs = pb.Caller(tenant="mine"), pb.Caller(tenant="theirs")
        assert (await client.decide(EASY, caller=mine, session_id="s")).model == "small"
        other = await client.decide(HARD, caller=theirs, session_id="s")
        assert (other.model, other.pinned) == ("large", False)
        with pytest.raises(RouterError, match="UNKNOWN_SESSION"):
            await client.end_session("s")
        await client.end_session("s", tenant="theirs")
        assert (await client.decide(HARD, caller=mine, session_id="s")).model == "small"
        assert (await client.status()).sessions == 1


CHEAP = profile(
    *("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
    models={"first": {"price": {"input": 5, "output": 5}}, "second": PRICED},
)
CHEAPEST = pb.Preferences(objective=pb.OBJECTIVE_COST)


async def test_an_objective_does_not_override_a_pin() -> None:
    """Without a session the cheaper one is chosen; the session keeps what it first got."""
    async with routed(CHEAP) as client:
        assert (await client.decide(EASY, preferences=CHEAPEST)).model == "second"
        assert (await client.decide(EASY, session_id="s")).model == "first"
        pinned = await client.decide(EASY, preferences=CHEAPEST, session_id="s")
        assert (pinned.model, pinned.pinned) == ("first", True)
        assert list(pinned.fallback_chain) == ["second"]


async def test_a_model_that_the_caller_names_changes_no_pin() -> None:
    """Neither before there is one nor after."""
    second = pb.Preferences(model="second")
    async with routed(CHEAP) as client:
        for _ in range(2):
            named = await client.decide(EASY, preferences=second, session_id="s")
            assert (named.model, named.pinned) == ("second", False)
            assert (await client.decide(EASY, session_id="s")).model == "first"


async def test_first_requests_at_the_same_moment_agree() -> None:
    """They would choose differently; one is first, and all others are held to its choice."""
    async with routed(CHEAP) as client:
        decisions = await asyncio.gather(
            *(
                client.decide(EASY, session_id="s", preferences=CHEAPEST if i % 2 else None)
                for i in range(60)
            )
        )
        assert len({decision.model for decision in decisions}) == 1
        assert sum(not decision.pinned for decision in decisions) == 1


async def test_a_batch_is_held_as_well() -> None:
    """The requests of a batch come one after the other."""
    async with routed(CHEAP) as client:
        query = pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text=EASY)], session_id="s")
        cheapest = pb.DecideRequest(query=query, preferences=CHEAPEST)
        found = await client.batch_decide([cheapest, pb.DecideRequest(query=query)])
        decisions = [one for one in found if isinstance(one, pb.Decision)]
        assert [(d.model, d.pinned) for d in decisions] == [("second", False), ("second", True)]
        assert (await client.end_session("s")).requests == 2


# ---- what moves a pin, and what does not

BROKEN = stream(say("half"), Wait(0.2), Cut())


@pytest.mark.parametrize("how", [Status(500), Status(401), BROKEN], ids=["500", "401", "broke off"])
async def test_a_failed_backend_moves_the_pin(how: Behaviour) -> None:
    """Who answered in its place keeps the task, and every later decision says so."""
    async with chain((how, answer()), answer("second")) as (client, servers):
        assert (await client.decide(EASY, session_id="s")).model == "first"
        told = await ask(client, EASY, session_id="s", allow_restart=True)
        assert (told.finish.model, told.text) == ("second", "second")
        for _ in range(2):
            moved = await client.decide(EASY, session_id="s")
            assert (moved.model, moved.pinned, moved.pin_moved_from) == ("second", True, "first")
            assert "moved here when the backend of first failed" in moved.reason
            assert list(moved.fallback_chain) == ["first"]
        assert (await ask(client, EASY, session_id="s")).finish.model == "second"
        assert [len(server.requests) for server in servers] == [1, 2]
        other = await client.decide(EASY, session_id="t")
        begins_with = "second" if how == Status(401) else "first"  # a refused key is not used again
        assert (other.model, other.pin_moved_from) == (begins_with, "")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Status(500), Status(500)),
        (BROKEN, answer()),
        (Status(400), answer()),
        (Status(413), answer()),
        (Status(400, failure("content_filter")), answer()),
    ],
    ids=["all failed", "broke off", "malformed", "too long", "filtered"],
)
async def test_without_a_whole_answer_in_its_place_the_pin_stays(
    first: Behaviour, second: Behaviour
) -> None:
    """Also where the request, and not the backend, was at fault."""
    async with chain(first, second) as (client, _):
        await ask(client, EASY, session_id="s")
        decision = await client.decide(EASY, session_id="s")
        assert (decision.model, decision.pinned, decision.pin_moved_from) == ("first", True, "")


async def test_a_denial_overrules_a_pin_and_does_not_move_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pinned model gets not a byte of what it may not see; the next request has it again."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    cloud: dict[str, Any] = {
        "backends": {"first": {"provider": "deepseek"}},
        "governance": {"allow_cloud": True},
    }
    async with chain(answer("far"), answer("near"), **cloud) as (client, servers):
        assert (await ask(client, EASY, session_id="s")).text == "far"
        kept = await ask(client, EASY, session_id="s", caller=LOCAL)
        assert kept.text == "near"
        decision = kept.answer.decision
        assert decision
        assert (decision.model, decision.pinned, decision.pin_moved_from) == ("second", False, "")
        assert "pinned to first, which is denied this time, so second (local)" in decision.reason
        assert "denied: first (the caller allows local models only)" in decision.reason
        assert [c.model for c in decision.candidates] == ["first", "second"]
        assert len(servers[0].requests) == 1
        assert (await client.decide(EASY, session_id="s")).model == "first"
        assert (await ask(client, EASY, session_id="s")).text == "far"


async def test_a_pinned_fallback_is_screened_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is the first choice at one tier and a fallback at another is judged as each."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    row = {
        "tiers": {"low": ["far"], "high": ["near"]},
        "fallback_chain": ["far"],
        "fallback_to_cloud": False,
    }
    rows = {
        "models": {"far": {"provider": "deepseek", "id": "x"}, "near": ECHO},
        "routes": {"code_generation": row, "default": {"model": "near"}},
        "governance": {"allow_cloud": True},
    }
    async with routed(rows) as client:
        assert (await client.decide(EASY, session_id="s")).model == "far"
        hard = await client.decide(HARD, session_id="s")
        assert (hard.model, hard.pinned) == ("near", False)
        rulings = [(c.model, c.rule) for c in hard.candidates]
        assert rulings == [("far", "fallback_to_cloud"), ("near", "")]
        assert (await client.decide(EASY, session_id="s")).model == "far"


# ---- what a session came to


async def test_the_end_of_a_session_tells_its_cost() -> None:
    """Answers, failed attempts that were charged, and errors; nothing of anyone else's."""
    models = {"first": PRICED, "second": PRICED}
    async with chain((answer(), BROKEN), answer(), models=models) as (client, _):
        await client.decide(EASY, session_id="s")
        await ask(client, EASY, session_id="s")
        await ask(client, EASY)
        broken = await ask(client, EASY, session_id="s")
        assert broken.error
        ended = await client.end_session("s")
        (attempt,) = broken.answer.attempts
        assert attempt.cost_nano_usd > 0
        assert (ended.requests, ended.errors) == (3, 1)
        assert ended.cost_nano_usd == COST + attempt.cost_nano_usd
        assert ended.duration.ToNanoseconds() > 0


async def test_an_idle_session_ends() -> None:
    """By the server's own setting; the id begins another session."""
    async with routed(ROWS, session_idle_seconds=0.001) as client:
        assert (await client.decide(EASY, session_id="s")).model == "small"
        await asyncio.sleep(0.05)
        assert (await client.decide(HARD, session_id="s")).model == "large"


async def test_an_answer_from_nowhere_moves_the_pin() -> None:
    """A backend at which nothing listens is a failed backend, however often it is asked."""
    async with contextlib.AsyncExitStack() as until_then, upstream() as second:
        first = await until_then.enter_async_context(upstream())
        async with routed(profile(first, second)) as client:
            await client.decide(EASY, session_id="s")
            await until_then.aclose()
            for _ in range(2):
                assert (await ask(client, EASY, session_id="s")).finish.model == "second"
            decision = await client.decide(EASY, session_id="s")
            assert decision.pin_moved_from == "first"


@pytest.mark.parametrize(
    ("session_id", "code", "reason"),
    [("", "INVALID_ARGUMENT", "INVALID_REQUEST"), ("nope", "NOT_FOUND", "UNKNOWN_SESSION")],
)
async def test_a_session_that_is_not_there(
    client: RouterClient, session_id: str, code: str, reason: str
) -> None:
    """To end nothing is an error that says what is missing."""
    with pytest.raises(RouterError) as caught:
        await client.end_session(session_id)
    assert (caught.value.code.name, caught.value.reason) == (code, reason)
