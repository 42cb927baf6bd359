"""Profiles switched under load: no call is lost, none sees two profiles, sessions keep theirs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semroute import RouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import running_server
from upstream import GENEROUS, Wait, answer, ask, finish, profile, say, stream, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = ("north", "south", "east")
QUERIES = ("write a python script", "what does this gene do", "tell me a joke")
CALLERS = 60
ROUNDS = 8
BATCH = pb.DecideRequest(query=pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text=QUERIES[0])]))


@dataclass
class Switching:
    """A client of a server on which so many switches have been made."""

    client: RouterClient
    switches: int = 0

    async def switch(self) -> None:
        while True:
            for name in NAMES:
                assert (await self.client.activate_profile(name)).name == name
                self.switches += 1


@contextlib.asynccontextmanager
async def switching() -> AsyncIterator[Switching]:
    """A server whose active profile changes as fast as it can, all the while.

    The models of each profile answer with the profile's name, in two pieces, so that switches
    come in the midst of answers.
    """
    async with contextlib.AsyncExitStack() as stack:
        profiles: dict[str, Any] = {}
        for name in NAMES:
            slow = stream(say(name[:2]), Wait(0.02), say(name[2:]), finish())
            first = await stack.enter_async_context(upstream(slow, models=("first-id",)))
            second = await stack.enter_async_context(upstream(answer("not this")))
            optional = {"first": {"optional": True}}
            profiles[name] = profile(first, second, backends=optional, description=name)
        server = await stack.enter_async_context(running_server(profiles=profiles, active="north"))
        client = await stack.enter_async_context(RouterClient(server.address))
        for name in NAMES:  # their optional backends are known from here on
            await client.activate_profile(name)
        switching = Switching(client)
        switcher = asyncio.create_task(switching.switch())
        try:
            yield switching
            assert not switcher.done(), "switching came to an end before the load did"
        finally:
            switcher.cancel()
            await asyncio.gather(switcher, return_exceptions=True)


async def revisions(client: RouterClient) -> dict[str, str]:
    return {one.name: one.revision for one in await client.profiles()}


async def call(client: RouterClient, number: int, session_id: str = "") -> list[pb.Decision]:
    """One call of one of three kinds; what was answered must be of the decision's own profile."""
    query = QUERIES[number % len(QUERIES)]
    match number % 3:
        case 0:
            return [await client.decide(query, session_id=session_id)]
        case 1:
            told = await ask(client, query, session_id=session_id)
            assert told.error is None
            decision = told.answer.decision
            assert decision
            assert (told.text, told.finish.model) == (decision.profile, "first")
            return [decision]
    found = await client.batch_decide([BATCH] * 5)
    decisions = [one for one in found if isinstance(one, pb.Decision)]
    assert len(decisions) == 5
    assert len({decision.profile for decision in decisions}) == 1
    return decisions


async def test_no_call_is_lost_while_profiles_are_switched() -> None:
    """Hundreds of calls of every kind succeed, each on one profile, whole."""

    async def caller(client: RouterClient, number: int) -> list[pb.Decision]:
        return [d for i in range(ROUNDS) for d in await call(client, number + i)]

    async with switching() as load:
        client = load.client
        known = await revisions(client)
        async with asyncio.timeout(6 * GENEROUS):
            found = await asyncio.gather(*(caller(client, i) for i in range(CALLERS)))
        status = await client.status()
    decisions = [decision for some in found for decision in some]
    assert load.switches > len(NAMES)
    assert len({decision.profile for decision in decisions}) > 1
    for decision in decisions:
        assert decision.profile_revision == known[decision.profile]
        assert (decision.model, list(decision.fallback_chain)) == ("first", ["second"])
    assert (status.requests, status.errors) == (len(decisions), 0)


async def test_sessions_keep_their_profile_while_profiles_are_switched() -> None:
    """However many switches come between its requests, a session sees one profile."""

    async def session(client: RouterClient, name: str) -> set[tuple[str, str, str]]:
        seen = set()
        for number in range(ROUNDS):
            kind = number if number % 3 < 2 else number + 1  # a batch has no session here
            for d in await call(client, kind, session_id=name):
                seen.add((d.profile, d.profile_revision, d.utterances_revision))
        return seen

    async with switching() as load:
        async with asyncio.timeout(6 * GENEROUS):
            seen = await asyncio.gather(*(session(load.client, f"s{i}") for i in range(CALLERS)))
        assert (await load.client.status()).sessions == CALLERS
    assert load.switches > len(NAMES)
    assert [len(one) for one in seen] == [1] * CALLERS
