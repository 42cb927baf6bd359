"""Not a byte: where a query may not leave the building, no cloud server is even connected to.

Real servers on loopback stand for the cloud and for local backends. The clouds count connections
and bytes at the socket; the local ones fail in every way there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute.v1 import router_pb2_grpc
from semroute_service.backends import Availability
from semroute_service.testing import running_server
from sockets import listening
from upstream import (
    GENEROUS,
    Behaviour,
    Cut,
    Raw,
    Status,
    Wait,
    ask,
    failure,
    nobody,
    profile,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute_service.testing import RunningServer
    from upstream import Told

QUERIES = ["write a python script", "what does this gene do", "tell me a joke"]


@dataclass
class Cloud:
    """A server that counts what reaches it, and says nothing."""

    url: str = ""
    connections: int = 0
    received: int = 0

    async def count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65536):
            self.received += len(data)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Cloud]:
    """A cloud on loopback."""
    cloud = Cloud()
    async with listening(cloud.count) as address:
        cloud.url = f"http://{address}/v1"
        yield cloud


def failures(cloud: Cloud) -> dict[str, Behaviour]:
    """Every way in which a local server may fail; some point to the cloud."""
    there = {"location": f"{cloud.url}/chat/completions"}
    return {
        "500": Status(500),
        "503": Status(503, headers={"retry-after": "0"}),
        "429": Status(429, headers={"retry-after": "0"}),
        "401": Status(401),
        "404": Status(404),
        "too long": Status(413),
        "malformed": Status(400),
        "filtered": Status(400, failure("content_filter")),
        "moved": Status(301, headers=there),
        "redirected": Status(307, headers=there),
        "elsewhere": Status(200, headers={**there, "alt-svc": f'h2="{cloud.url}"'}),
        "closed": Raw(),
        "garbage": Raw(b"\0\1\2 no http\r\n\r\n"),
        "silent": Wait(),
        "stalled": stream(say("half"), Wait()),
        "cut": stream(say("half"), Cut()),
        "no end": stream(say("half")),
        "error inside": stream(failure("overloaded")),
        "nonsense": stream(b"data: {\n\n" * 30),
    }


def arranged(local: str, cloud: Cloud, **governance: Any) -> dict[str, Any]:
    """Two clouds stand beside and behind local servers that fail; both are free of charge."""
    free = {"price": {"input": 0, "output": 0}}
    made = profile(
        local,
        cloud.url,
        nobody(),
        backends={"second": {"provider": "deepseek", "clearance": "restricted"}},
        models={"second": free},
        behavior={"timeout_seconds": 0.2},
        governance={"allow_cloud": True, **governance},
    )
    made["backends"]["narrowed"] = {"provider": "vllm", "url": cloud.url, "locality": "cloud"}
    made["models"]["fourth"] = {"backend": "narrowed", "id": "fourth-id", **free}
    row = {"tiers": {"low": ["first", "second"]}, "fallback_chain": ["fourth", "third"]}
    made["routes"] = {"default": row, "biomedical": {**row, "fallback_chain": ["second"]}}
    return made


WAYS: dict[str, tuple[dict[str, Any], pb.Caller]] = {
    "local_only": ({}, pb.Caller(local_only=True)),
    "allow_cloud: false": ({"allow_cloud": False}, pb.Caller()),
    "the tenant's allow_cloud: false": (
        {"tenants": {"clinic": {"allow_cloud": False}}},
        pb.Caller(tenant="clinic"),
    ),
    "every tenant's allow_cloud: false": (
        {"tenants": {"*": {"allow_cloud": False}}},
        pb.Caller(),
    ),
}
WISHES = [
    pb.Preferences(),
    pb.Preferences(objective=pb.OBJECTIVE_COST),
    pb.Preferences(model="second"),
    pb.Preferences(model="fourth"),
]


def forget(server: RunningServer) -> None:
    """Let the failures before count for nothing, so that the next kind is met as the first."""
    assert server.server._router
    server.server._router.backends.availability = Availability()


async def ask_everything(server: RunningServer, caller: pb.Caller) -> list[Told]:
    """Every call that a query goes through, with every wish; what came of the answers."""
    told = []
    queries = [
        pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text=text)], caller=caller)
        for text in QUERIES
    ]
    async with RouterClient(server.address) as client:
        for wish in WISHES:
            with contextlib.suppress(RouterError):
                await client.decide(QUERIES[0], caller=caller, preferences=wish, session_id="s")
            await client.batch_decide(
                [pb.DecideRequest(query=query, preferences=wish) for query in queries]
            )
            how: dict[str, Any] = {"preferences": wish, "allow_restart": True, "session_id": "s"}
            told.append(await ask(client, caller=caller, **how))
    async with grpc.aio.insecure_channel(server.address) as channel:
        embed = router_pb2_grpc.RouterServiceStub(channel).Embed
        await embed(pb.EmbedRequest(texts=QUERIES, caller=caller))
    return told


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clouds could be called; only governance keeps anyone from them."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    monkeypatch.setenv("VLLM_API_KEY", "k")


@pytest.mark.parametrize("way", WAYS)
async def test_not_a_byte(way: str) -> None:
    """Whatever fails at home, and whatever is asked for, no cloud hears of it."""
    governance, caller = WAYS[way]
    async with (
        watched() as cloud,
        upstream() as local,
        running_server(arranged(local.url, cloud, **governance)) as server,
    ):
        for name, behaviour in failures(cloud).items():
            local.behaviours = (behaviour,)
            forget(server)
            before = len(local.requests)
            told = await ask_everything(server, caller)
            assert all(one.error for one in told), name
            assert len(local.requests) > before, name
            assert (cloud.connections, cloud.received) == (0, 0), name


@pytest.mark.parametrize("named", ["", "second", "fourth"])
async def test_the_clouds_do_count(named: str) -> None:
    """Where the cloud is allowed the same servers hear of it, so the silence is governance's."""
    async with (
        watched() as cloud,
        upstream(Status(500)) as local,
        running_server(arranged(local.url, cloud)) as server,
        RouterClient(server.address) as client,
    ):
        await client.decide(QUERIES[0])
        assert cloud.connections == 0
        told = await ask(client, preferences=pb.Preferences(model=named))
    assert told.error
    assert cloud.connections
    assert cloud.received > len(QUERIES[0])


async def test_a_closed_profile_asks_no_cloud_whether_it_is_there() -> None:
    """Optional backends are probed at the start, now and then, and before a profile is activated:
    not a cloud, where nothing may go to one."""
    async with watched() as cloud, upstream(models=("first-id",)) as local:
        closed = arranged(local.url, cloud, allow_cloud=False)
        for backend in closed["backends"].values():
            backend["optional"] = True
        async with (
            running_server(profiles={"test": closed, "next": closed}, probe_seconds=0.02) as server,
            RouterClient(server.address) as client,
        ):
            async with asyncio.timeout(GENEROUS):
                while local.listed < 3:
                    await asyncio.sleep(0.02)
            await client.activate_profile("next")
            assert (await client.decide(QUERIES[0])).model == "first"
        assert (cloud.connections, cloud.received) == (0, 0)


@pytest.mark.parametrize("way", ["local_only", "allow_cloud: false"])
async def test_a_failing_encoder_sends_nobody_to_the_cloud(way: str) -> None:
    """Where the profile's encoder does not answer, what stands in for it is local."""
    governance, caller = WAYS[way]
    async with watched() as cloud, upstream(Status(500)) as local:
        remote = arranged(local.url, cloud, **governance)
        remote["backends"]["vectors"] = {"provider": "vllm", "url": nobody()}
        remote["models"]["vectors"] = {"backend": "vectors", "id": "v", "kind": "embedding"}
        remote["classifier"] = {"encoder": {"model": "vectors", "fallback": "hashing"}}
        async with running_server(remote, encoder="") as server:
            await ask_everything(server, caller)
        assert local.requests
        assert (cloud.connections, cloud.received) == (0, 0)
