"""What a server counts, and how ``semroute status`` and ``semroute session end`` tell it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.cli import main
from semroute_service.cli.status import _words
from semroute_service.testing import ECHO_PROFILE, running_server
from upstream import (
    GENEROUS,
    Status,
    Wait,
    answer,
    ask,
    chain,
    nobody,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Command = Callable[..., Awaitable[tuple[int, str, str]]]

QUERY = "write a python script"
LOCAL = pb.Caller(local_only=True)


@pytest_asyncio.fixture
async def semroute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Command]:
    """Runs a command against a server that goes on serving meanwhile."""
    profiles = {"north": ECHO_PROFILE, "south": {**ECHO_PROFILE, "description": "another"}}
    async with running_server(profiles=profiles, active="north") as server:
        monkeypatch.setenv("SEMROUTE_ADDRESS", server.address)

        async def run(*arguments: object) -> tuple[int, str, str]:
            capsys.readouterr()
            status = await asyncio.to_thread(main, [str(argument) for argument in arguments])
            return (status, *capsys.readouterr())

        yield run


async def counted(client: RouterClient) -> tuple[int, int, int]:
    """Requests, errors and fallbacks."""
    status = await client.status()
    return status.requests, status.errors, status.fallbacks


# ---- counting


async def test_a_fresh_server(client: RouterClient) -> None:
    """Says who it is and since when, and has counted nothing."""
    status = await client.status()
    assert (status.active.name, status.active.active) == ("test", True)
    assert status.active.revision
    assert status.utterances_revision == (await client.decide(QUERY)).utterances_revision
    assert status.version == version("semroute")
    assert (status.requests, status.errors, status.fallbacks, status.sessions) == (0, 0, 0, 0)
    age = datetime.now(UTC) - status.started_at.ToDatetime(UTC)
    assert 0 <= status.uptime.ToNanoseconds() / 1e9 <= age.total_seconds() + 1


async def test_every_request_is_counted_once(client: RouterClient) -> None:
    """Decisions, each item of a batch, and answers; what else is asked is not a request."""
    await client.decide(QUERY)
    await client.batch_decide([QUERY] * 3)
    await ask(client, QUERY)
    await client.embed([QUERY])
    await client.profiles()
    assert await counted(client) == (5, 0, 0)


async def test_errors_are_counted(client: RouterClient) -> None:
    """Those that routing finds, and those of requests that cannot even be read."""
    for wrong in ({"profile": "nope"}, {"preferences": pb.Preferences(model="nope")}):
        with pytest.raises(RouterError):
            await client.decide(QUERY, **wrong)
        assert (await ask(client, QUERY, **wrong)).error
    assert await counted(client) == (4, 4, 0)
    with pytest.raises(RouterError):
        await client.decide("")
    assert (await ask(client, "")).error
    assert await counted(client) == (6, 6, 0)
    user = pb.Message(role=pb.ROLE_USER, text=QUERY)
    nope = pb.DecideRequest(profile="nope", query=pb.Query(messages=[user]))
    await client.batch_decide([QUERY, "", nope])
    assert await counted(client) == (9, 8, 0)


async def test_denials_and_failed_answers_are_errors() -> None:
    """A denial fails a request, and so do backends that all fail; a decision for them does not."""
    async with routed(profile(nobody())) as client:
        await client.decide(QUERY)
        assert (await ask(client, QUERY)).error
        needs = pb.Preferences(required_capabilities=[pb.CAPABILITY_EMBEDDING])
        with pytest.raises(RouterError, match="NO_COMPLIANT_MODEL"):
            await client.decide(QUERY, preferences=needs)
        assert await counted(client) == (3, 2, 0)


async def test_fallbacks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers by another model than the first that was tried: no denial, no retry, no failure."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    parts: dict[str, Any] = {
        "backends": {"first": {"provider": "deepseek"}},
        "governance": {"allow_cloud": True},
        "behavior": {"max_retries": 1},
    }
    async with chain((Status(503), answer()), answer(), **parts) as (client, _):
        assert (await ask(client, QUERY)).finish.model == "first"  # at the second try
        assert (await ask(client, QUERY, caller=LOCAL)).finish.model == "second"  # by a denial
        assert await counted(client) == (2, 0, 0)
    async with chain((Status(500), answer()), answer()) as (client, _):
        assert (await ask(client, QUERY)).finish.model == "second"
        assert (await ask(client, QUERY)).finish.model == "first"
        assert await counted(client) == (2, 0, 1)


async def test_a_caller_who_leaves_is_no_error() -> None:
    """The request counts, and nothing went wrong with it; its session is not kept busy."""
    forever = stream(say("word"), Wait())
    async with (
        upstream(forever) as first,
        routed(profile(first), session_idle_seconds=0.2) as client,
    ):
        async with client.complete(QUERY, session_id="s") as half:
            async for _ in half:
                break
            await asyncio.sleep(0.5)
            assert (await client.status()).sessions == 1
        await asyncio.wait_for(first.requests[0].left.wait(), GENEROUS)
        async with asyncio.timeout(GENEROUS):
            while (await client.status()).sessions:
                await asyncio.sleep(0.05)
        assert await counted(client) == (1, 0, 0)


async def test_the_status_tells_the_switch(semroute: Command) -> None:
    """The profile is the one that is active now; sessions count as long as they are open."""
    for session in ("s", "s", "t"):
        await semroute("decide", QUERY, "--session", session)
    status, out, err = await semroute("status", "--json")
    found = json.loads(out)
    assert (status, err, found["sessions"], found["requests"]) == (0, "", "2", "3")
    assert found["active"]["name"] == "north"
    status, out, err = await semroute("session", "end", "s", "--json")
    ended = json.loads(out)
    assert (status, err, ended["requests"], ended["errors"]) == (0, "", "2", "0")
    found = json.loads((await semroute("status", "--json"))[1])
    assert (found["sessions"], found["fallbacks"]) == ("1", "0")


# ---- commands


async def test_status_for_people(semroute: Command) -> None:
    """A line for each of what the server says."""
    status, out, err = await semroute("status")
    assert (status, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(lines) == [
        *("profile", "utterances", "up", "sessions", "requests", "errors", "fallbacks", "version")
    ]
    assert lines["profile"].startswith("north (revision ")
    assert (lines["sessions"], lines["requests"]) == ("0 open", "0")
    assert lines["up"].endswith(" UTC")


async def test_session_end_for_people(semroute: Command) -> None:
    """What the session came to in one line; a session of another tenant is not there."""
    await semroute("decide", QUERY, "--session", "s", "--tenant", "lab")
    status, out, err = await semroute("session", "end", "s")
    assert (status, out) == (1, "")
    assert err.startswith("semroute: UNKNOWN_SESSION: no such session is open;")
    status, out, err = await semroute("session", "end", "s", "--tenant", "lab")
    assert (status, err) == (0, "")
    assert out == "ended after 0 s: 1 requests, 0 errors, 0.000000 USD\n"


@pytest.mark.parametrize("command", [["status"], ["session", "end", "s"]])
async def test_no_server(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens both say so, and how to begin."""
    address = nobody()[len("http://") : -len("/v1")]
    assert await asyncio.to_thread(main, [*command, "--server", address]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"semroute: no server answers at {address}; start one: semroute serve\n",
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (3600, "1 h"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_durations_in_words(seconds: int, words: str) -> None:
    """The two largest units, so that a person reads it at a glance."""
    assert _words(seconds) == words
