"""A call whose deadline has passed costs no encoder pass, through a real server."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from semroute.v1 import router_pb2 as pb
from semroute.v1 import router_pb2_grpc
from semroute_service.testing import RunningServer, running_server

if TYPE_CHECKING:
    from collections.abc import Sequence


class Held:
    """The server's own encoder, whose passes wait until they are let go; it knows what it read."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.busy, self.go = threading.Event(), threading.Event()
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Sequence[str]) -> Any:
        self.busy.set()
        self.go.wait(30)
        self.read += texts
        return self._encoder.encode(texts)


def request(text: str) -> pb.DecideRequest:
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=text)])
    return pb.DecideRequest(query=pb.Query(messages=[message]))


async def stopped(server: RunningServer, seconds: float = 10) -> None:
    """Wait until only the first call is left: a caller hears of its deadline before the server."""
    async with asyncio.timeout(seconds):
        while server.server._calls > 1:
            await asyncio.sleep(0.01)


async def test_a_passed_deadline_costs_no_pass() -> None:
    """It waits behind a pass, its time runs out, and the encoder never sees it."""
    async with (
        running_server() as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        router = await server.server.ready()
        ready = await router.classifiers.get("auto")
        held = Held(ready.classifier.encoder)
        ready.classifier.encoder = held
        stub = router_pb2_grpc.RouterServiceStub(channel)
        first = stub.Decide(request("the first holds the encoder"))
        while not held.busy.is_set():
            await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Decide(request("the late one"), timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await stopped(server)
        held.go.set()
        await first
        await stub.Decide(request("the last"))
        assert "the first holds the encoder" in held.read
        assert "the last" in held.read
        assert "the late one" not in held.read
