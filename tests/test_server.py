"""The server's life: warm-up, health, reflection, decisions and answers over a real channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_classifier.encoders import EncoderError
from semroute_service.errors import NotReadyError
from semroute_service.faults import fault_server
from semroute_service.governance import DEFAULT_OUTPUT_TOKENS
from semroute_service.ledger import Ledger
from semroute_service.server import SERVICES
from semroute_service.testing import UTTERANCES, running_server
from sockets import serving
from upstream import profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from semroute_service.testing import RunningServer

QUERY = "write a python script"
GENEROUS = 120.0
"""Seconds, against hanging only."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SCREENED_PROFILE: dict[str, Any] = {
    "models": {
        "far": {"provider": "deepseek", "id": "deepseek-chat"},
        "near": {"provider": "echo"},
        "spare": {"provider": "echo"},
    },
    "routes": {"default": {"model": "far", "fallback_chain": ["near", "spare"]}},
}
"""Its first choice is in the cloud, where nothing may go."""


@dataclass
class SlowUpstream:
    """Sends one word, and the rest of the answer when ``may_end`` is set."""

    url: str
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def profile(self) -> dict[str, Any]:
        return {
            "backends": {"slow": {"provider": "vllm", "url": self.url}},
            "models": {"slow": {"backend": "slow", "id": "slow"}},
            "routes": {"default": {"model": "slow"}},
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_chunk("first"))
        await self.may_end.wait()
        await response.write(_chunk(" last") + _chunk("", "stop") + b"data: [DONE]\n\n")
        return response


def _chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@contextlib.asynccontextmanager
async def slow_upstream() -> AsyncIterator[SlowUpstream]:
    upstream = SlowUpstream("")
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.answer)
    async with serving(app) as address:
        upstream.url = f"http://{address}/v1"
        yield upstream


async def health_of(address: str, service: str = "") -> int:
    """What the health service says of ``service``."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        response = await check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        status: int = response.status
        return status


def many_utterances(count: int) -> dict[str, list[str]]:
    """So many that the warm-up takes a while."""
    return {"code": [f"write program number {i} in python" for i in range(count)]}


async def test_decide_names_task_tier_and_model(client: RouterClient) -> None:
    """A query near an utterance gets its task, and the row's model."""
    decision = await client.decide(QUERY)
    assert decision.classification.task == "code_generation"
    assert decision.classification.basis == pb.BASIS_MATCHED
    assert decision.model == "echo"
    assert decision.candidates[0].ruling == pb.RULING_ADMITTED


async def test_complete_streams_decision_deltas_finish(client: RouterClient) -> None:
    """The decision is first, the text comes in pieces, and one finish ends it."""
    async with client.complete(QUERY) as answer:
        pieces = [delta.text async for delta in answer]
    assert len(pieces) > 1
    assert "".join(pieces) == "You said: write a python script"
    assert answer.decision is not None
    assert answer.finish is not None
    assert answer.finish.reason == pb.FINISH_REASON_STOP
    assert answer.finish.model == "echo"


async def test_a_decision_explains_itself() -> None:
    """A decision carries what is needed to explain and replay it."""
    async with (
        running_server(profile=SCREENED_PROFILE) as server,
        RouterClient(server.address) as client,
    ):
        decision = await client.decide(QUERY)
    assert len(decision.id) == 32
    assert decision.decided_at.seconds > 0
    assert decision.profile == "test"
    assert decision.profile_revision
    assert decision.utterances_revision
    assert decision.encoder == "hashing"
    assert decision.route == "default"
    assert [(c.model, c.local, c.ruling, c.rule) for c in decision.candidates] == [
        ("far", False, pb.RULING_DENIED, "allow_cloud"),
        ("near", True, pb.RULING_ADMITTED, ""),
        ("spare", True, pb.RULING_ADMITTED, ""),
    ]
    assert decision.candidates[0].reason
    assert (decision.model, decision.provider) == ("near", "echo")
    assert (decision.primary_model, decision.fallback_depth) == ("far", 1)
    assert list(decision.fallback_chain) == ["spare"]
    assert "far" in decision.reason
    stages = decision.elapsed
    assert stages.total.ToNanoseconds() > 0
    parts = (stages.embed, stages.search, stages.policy)
    assert sum(part.ToNanoseconds() for part in parts) <= stages.total.ToNanoseconds()


async def test_decide_and_complete_agree(client: RouterClient) -> None:
    """Both RPCs decide the same query the same way; only identity and clock differ."""
    for query in (QUERY, "interpret the variants of this patient's genome", "tell me a joke"):
        decided = await client.decide(query)
        async with client.complete(query) as answer:
            await answer.read()
        assert answer.decision is not None
        assert answer.decision.id != decided.id
        for decision in (decided, answer.decision):
            for name in ("id", "decided_at", "elapsed"):
                decision.ClearField(name)
        assert answer.decision == decided


async def test_explain_gives_more_evidence() -> None:
    """Five matches are the evidence, and twenty for who asks to have it explained."""
    async with (
        running_server(utterances=many_utterances(30)) as server,
        RouterClient(server.address) as client,
    ):
        brief = await client.decide(QUERY)
        full = await client.decide(QUERY, preferences=pb.Preferences(explain=True))
    assert len(brief.classification.matches) == 5
    assert len(full.classification.matches) == 20
    assert full.classification.matches[:5] == brief.classification.matches
    similarities = [match.similarity for match in full.classification.matches]
    assert similarities == sorted(similarities, reverse=True)


async def test_many_callers_at_once(client: RouterClient) -> None:
    """Concurrent decisions that share encoder passes each get their own query's verdict."""
    queries = [
        text for content in UTTERANCES.values() for texts in content.values() for text in texts
    ]
    alone = {query: await client.decide(query) for query in queries}
    together = await asyncio.gather(*(client.decide(query) for query in queries * 30))
    for query, decision in zip(queries * 30, together, strict=True):
        said, expected = decision.classification, alone[query].classification
        assert (said.task, said.tier, said.basis) == (expected.task, expected.tier, expected.basis)
        assert said.matches[0].utterance == query
    assert len({decision.id for decision in together}) == len(together)


async def test_not_serving_until_warm() -> None:
    """While the encoder loads, nothing is reported healthy, and a caller's deadline may wait."""
    slow = many_utterances(100)
    async with running_server(utterances=slow, encoder="bundled", wait=False) as server:
        cold = [await health_of(server.address, name) for name in ("", *SERVICES)]
        assert cold == [NOT_SERVING] * (1 + len(SERVICES))
        async with RouterClient(server.address) as client:
            decision = await client.decide(QUERY, timeout=GENEROUS)
        assert decision.encoder == "bundled"
        await server.server.ready()
        warm = [await health_of(server.address, name) for name in ("", *SERVICES)]
        assert warm == [SERVING] * (1 + len(SERVICES))


async def test_a_deadline_ends_a_wait_for_the_warm_up() -> None:
    """A caller who will not wait for the warm-up is let go, and the server still becomes warm."""
    slow = many_utterances(100)
    async with running_server(utterances=slow, encoder="bundled", wait=False) as server:
        async with RouterClient(server.address) as client:
            with pytest.raises(RouterError) as caught:
                await client.decide(QUERY, timeout=0.1)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        await server.server.ready()
        assert await health_of(server.address) == SERVING


async def test_a_failed_warm_up_is_told(tmp_path: Path) -> None:
    """With an encoder that is not there every call says so, and so does ``ready``."""
    missing = str(tmp_path / "nothing")
    async with running_server(encoder=missing, wait=False) as server:
        with pytest.raises(EncoderError, match="is not a folder"):
            await server.server.ready()
        async with RouterClient(server.address) as client:
            for call in (client.decide(QUERY), client.profiles(), client.complete(QUERY).read()):
                with pytest.raises(RouterError, match="is not a folder") as caught:
                    await call
                assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
                assert caught.value.reason == "INVALID_CONFIG"
        assert await health_of(server.address) == NOT_SERVING


async def test_reflection_lists_the_services(echo_server: RunningServer) -> None:
    """A tool without the proto files finds every service, and the file that has it."""

    def look() -> tuple[list[str], str]:
        with grpc.insecure_channel(echo_server.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("semroute.v1.RouterService")
            return list(database.get_services()), file.name

    services, file = await asyncio.to_thread(look)
    assert {*SERVICES, "grpc.health.v1.Health"} <= set(services)
    assert file == "semroute/v1/router.proto"


async def test_a_taken_port_is_an_error(echo_server: RunningServer) -> None:
    """A second server on the same port says so, and the first one goes on."""
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:\d+"):
        async with running_server(listen=echo_server.address):
            pass
    assert await health_of(echo_server.address) == SERVING


async def test_a_broken_ledger_is_an_error(tmp_path: Path) -> None:
    """A ledger that is not one stops the start with its path."""
    (tmp_path / "ledger.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"ledger\.sqlite3 cannot be opened"):
        async with running_server(home=tmp_path):
            pass


async def test_stop_drains() -> None:
    """Health falls first, new calls are refused, and the answer in flight comes to its end."""
    async with (
        slow_upstream() as upstream,
        running_server(profile=upstream.profile, drain_seconds=GENEROUS) as server,
        RouterClient(server.address) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        async with client.complete(QUERY) as answer:
            deltas = aiter(answer)
            assert (await anext(deltas)).text == "first"
            stopping = asyncio.create_task(server.server.stop())
            assert (await watch.read()).status == NOT_SERVING
            watch.cancel()
            await _refused(server.address)
            assert not stopping.done()
            upstream.may_end.set()
            rest = [delta.text async for delta in deltas]
        assert "".join(rest) == " last"
        assert answer.finish is not None
        async with asyncio.timeout(GENEROUS):
            await stopping
        with pytest.raises(NotReadyError):
            await server.server.ready()


async def _refused(address: str) -> None:
    """Return once a new caller is turned away, as by a server that is not there."""
    code = grpc.StatusCode.OK
    async with asyncio.timeout(GENEROUS):
        while code is grpc.StatusCode.OK:
            async with RouterClient(address) as client:
                try:
                    await client.decide(QUERY)
                except RouterError as error:
                    code = error.code
    assert code == grpc.StatusCode.UNAVAILABLE


async def test_stop_does_not_wait_for_ever() -> None:
    """An answer that outlasts the time to drain is cut, and is not taken for a whole one."""
    async with (
        slow_upstream() as upstream,
        running_server(profile=upstream.profile, drain_seconds=0.2) as server,
        RouterClient(server.address) as client,
        client.complete(QUERY) as answer,
    ):
        deltas = aiter(answer)
        assert (await anext(deltas)).text == "first"
        async with asyncio.timeout(GENEROUS):
            await asyncio.gather(server.server.stop(), server.server.stop())
        with pytest.raises(RouterError):
            await anext(deltas)
        assert answer.finish is None


async def test_what_is_cut_off_by_the_end_is_booked(tmp_path: Path) -> None:
    """Answers that the end cuts off are settled before the ledger closes; nothing is reserved."""
    price = {"price": {"input": 0, "output": 1}}  # 1,000 nano-USD per token
    async with fault_server("stall:3") as upstream:
        served = profile(upstream.url, models={"first": {"id": "stall:3", **price}})
        async with (
            running_server(served, drain_seconds=0.1, home=tmp_path) as server,
            RouterClient(server.address) as client,
            contextlib.AsyncExitStack() as stack,
        ):
            for _ in range(8):
                answer = await stack.enter_async_context(client.complete(QUERY))
                await anext(aiter(answer))
            await server.server.stop()
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    booked = ledger.spent("test")
    ledger.close()
    assert 0 < booked < DEFAULT_OUTPUT_TOKENS * 1_000
    assert booked % 8 == 0


async def test_stop_while_warming_up(tmp_path: Path) -> None:
    """A server that is told to stop before it is warm gives up what it builds."""
    async with running_server(
        utterances=many_utterances(20_000), encoder="bundled", wait=False, home=tmp_path
    ) as server:
        assert await health_of(server.address) == NOT_SERVING
        async with asyncio.timeout(GENEROUS):
            await server.server.stop()
    assert not (tmp_path / "artifacts").exists()
