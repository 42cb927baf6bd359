"""``semroute backends``: what a running server knows of its backends, for people and programs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from semroute import RouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.cli import main
from semroute_service.testing import ECHO_PROFILE, running_server
from talkers import http, models, talkers
from upstream import Status, ask, nobody, profile, upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Command = Callable[..., Awaitable[tuple[int, str, str]]]

METRICS = "vllm:num_requests_waiting 4\n"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``semroute backends`` on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(main, ["backends", *arguments])
        return (status, *capsys.readouterr())

    return run


async def test_for_people(command: Command) -> None:
    """A line for each backend and each model: health, queue, circuit, counts, speed, and what is
    known against it."""
    well = {"/v1/models": models("second-id"), "/metrics": http(200, METRICS)}
    async with (
        upstream(Status(500)) as first,
        talkers({"it": well}) as up,
        running_server(profile(first, up["it"].url, nobody())) as server,
        RouterClient(server.address) as client,
    ):
        for _ in range(3):
            await ask(client, preferences=pb.Preferences(model="first"))
        status, out, err = await command("--server", server.address)
    assert (status, err) == (0, "")
    lines = {tuple(line.split()[:2]): " ".join(line.split()) for line in out.splitlines()}
    assert out.startswith("profile test\n")
    assert lines["first", "vllm"].startswith("first vllm local - up at ")
    assert lines["second", "vllm"].startswith("second vllm local 4 up at ")
    assert lines["third", "vllm"].startswith("third vllm local - down at ")
    assert lines["third", "vllm"].endswith(" UTC: cannot be reached")
    assert lines["first", "first"].startswith("first first open 3 3 - - - failed 3 times in a row;")
    assert " not asked for " in lines["first", "first"]
    assert lines["third", "third"].endswith("did not answer its last check: it cannot be reached")


async def test_speeds_for_people(command: Command) -> None:
    """Once a model has answered, how long its first token took is told, and nothing against it."""
    async with (
        upstream() as first,
        running_server(profile(first)) as server,
        RouterClient(server.address) as client,
    ):
        assert (await ask(client)).finish
        _, out, _ = await command("--server", server.address)
    line = out.splitlines()[-1].split()
    assert line[:5] == ["first", "first", "closed", "1", "0"]
    assert line[6] == line[8] == "ms"
    assert 0 <= int(line[5]) <= int(line[7])


async def test_for_programs(command: Command) -> None:
    """The message under its own field names, of the profile that is asked for."""
    profiles = {"test": ECHO_PROFILE, "other": profile(nobody())}
    async with running_server(profiles=profiles) as server:
        status, out, err = await command("--server", server.address, "--json")
        of_other = json.loads(
            (await command("--server", server.address, "--profile", "other", "--json"))[1]
        )
    found = json.loads(out)
    assert (status, err, found["profile"]) == (0, "", "test")
    (echo,) = found["backends"]
    assert (echo["provider"], echo["local"], echo["health"]) == ("echo", True, "HEALTH_UNSPECIFIED")
    assert (echo["models"][0]["circuit"], echo["models"][0]["calls"]) == ("CIRCUIT_CLOSED", "0")
    assert (of_other["profile"], of_other["backends"][0]["backend"]) == ("other", "first")


async def test_no_such_profile(command: Command) -> None:
    """The error names it."""
    async with running_server() as server:
        status, out, err = await command("--server", server.address, "--profile", "nope")
    assert (status, out) == (1, "")
    assert err.startswith("semroute: UNKNOWN_PROFILE: ")
    assert "nope" in err


async def test_no_server(command: Command) -> None:
    """Where nobody listens it says so, and how to begin."""
    address = nobody()[len("http://") : -len("/v1")]
    told = await command("--server", address)
    assert told == (1, "", f"semroute: no server answers at {address}; start one: semroute serve\n")
