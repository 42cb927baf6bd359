"""Both clients: they do the same, keep their deadlines, and leave nothing running behind them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from aiohttp import web

from semroute import RouterClient, RouterError, SyncRouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import RunningServer, running_server
from sockets import listening, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONG_SECONDS = 20.0
"""Longer than anything here takes; reached only where something hangs."""
QUERY = "write a python script"
PROFILES: dict[str, dict[str, Any]] = {
    name: {
        "models": {f"{name}_model": {"provider": "echo"}},
        "routes": {"default": {"model": f"{name}_model"}},
    }
    for name in ("north", "south")
}


class Both:
    """Calls the same method of both clients and insists on the same result."""

    def __init__(self, aio: RouterClient, sync: SyncRouterClient) -> None:
        self.aio, self.sync = aio, sync

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        result = _comparable(await getattr(self.aio, method)(*arguments, **named))
        other = await asyncio.to_thread(getattr(self.sync, method), *arguments, **named)
        assert _comparable(other) == result
        return result

    async def complete(self, *arguments: Any, **named: Any) -> tuple[list[pb.Delta], Any]:
        """The deltas, and the completion that collected them."""
        async with self.aio.complete(*arguments, **named) as answer:
            deltas = [delta async for delta in answer]

        def read() -> list[pb.Delta]:
            with self.sync.complete(*arguments, **named) as other:
                found = list(other)
            assert other.text == answer.text
            assert _comparable(other.decision) == _comparable(answer.decision)
            assert other.finish
            assert answer.finish
            assert (other.finish.reason, other.finish.usage) == (
                answer.finish.reason,
                answer.finish.usage,
            )
            return found

        assert await asyncio.to_thread(read) == deltas
        return deltas, answer

    async def error(self, method: str, *arguments: Any, **named: Any) -> RouterError:
        with pytest.raises(RouterError) as one:
            await getattr(self.aio, method)(*arguments, **named)
        with pytest.raises(RouterError) as other:
            await asyncio.to_thread(getattr(self.sync, method), *arguments, **named)
        for name in ("code", "reason", "violations", "retry_after"):
            assert getattr(one.value, name) == getattr(other.value, name)
        return one.value


def _comparable(result: Any) -> Any:
    """``result`` without what differs from call to call."""
    if isinstance(result, list):
        return [_comparable(one) for one in result]
    if isinstance(result, RouterError):
        return vars(result)
    if isinstance(result, pb.Decision):
        for name in ("id", "decided_at", "elapsed"):
            result.ClearField(name)
    return result


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    async with (
        running_server(profiles=PROFILES, active="north") as server,
        RouterClient(server.address) as aio,
    ):
        with SyncRouterClient(server.address) as sync:
            yield Both(aio, sync)


async def test_decide(both: Both) -> None:
    """A text, a conversation and a whole Query are all queries, with all that goes beside them."""
    decision = await both.call("decide", QUERY)
    assert (decision.classification.task, decision.model) == ("code_generation", "north_model")
    messages = [pb.Message(role=pb.ROLE_USER, text=QUERY)]
    assert await both.call("decide", messages) == decision
    assert await both.call("decide", pb.Query(messages=messages)) == decision
    explained = pb.Preferences(explain=True, required_capabilities=[pb.CAPABILITY_CHAT])
    other = await both.call(
        "decide",
        QUERY,
        profile="south",
        caller=pb.Caller(local_only=True),
        preferences=explained,
    )
    assert other.model == "south_model"
    assert len(other.classification.matches) > len(decision.classification.matches)


async def test_a_query_is_not_changed(both: Both) -> None:
    """Caller and session fill in what a Query leaves unset, and the Query stays as it is."""
    query = pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text=QUERY)])
    before = query.SerializeToString()
    error = await both.error(
        "decide", query, caller=pb.Caller(tenant="x" * 200), session_id="x" * 200
    )
    assert [v.subject for v in error.violations] == ["query.caller.tenant", "query.session_id"]
    assert query.SerializeToString() == before


async def test_batch_decide(both: Both) -> None:
    """Texts and requests go together, and an error stands where its request stood."""
    request = pb.DecideRequest(profile="west")
    request.query.messages.add(role=pb.ROLE_USER, text=QUERY)
    first, empty, west = await both.call("batch_decide", [QUERY, "", request])
    assert first.model == "north_model"
    assert (empty["code"], empty["reason"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert (west["code"], west["reason"]) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PROFILE")


async def test_complete(both: Both) -> None:
    """Deltas come one by one; decision, text and finish are there at the end."""
    deltas, answer = await both.complete(QUERY)
    assert len(deltas) > 1
    assert answer.text == f"You said: {QUERY}" == "".join(delta.text for delta in deltas)
    assert answer.finish.model == answer.decision.model == "north_model"
    assert (answer.attempts, answer.restarts) == ([], 0)


async def test_complete_options(both: Both) -> None:
    """Every option of a completion reaches the server."""
    _, cut = await both.complete(QUERY, sampling=pb.Sampling(max_tokens=2), profile="south")
    assert (cut.text, cut.finish.reason) == ("You said:", pb.FINISH_REASON_LENGTH)
    assert cut.finish.model == "south_model"
    tools = [pb.Tool(name="search")]
    deltas, called = await both.complete(
        QUERY, tools=tools, tool_choice=pb.ToolChoice(tool="search"), allow_restart=True
    )
    assert deltas[0].tool_calls[0].name == "search"
    assert called.finish.reason == pb.FINISH_REASON_TOOL_CALLS
    wanted = pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT)
    with pytest.raises(RouterError) as caught:
        await both.aio.complete(QUERY, response_format=wanted).read()
    assert [violation.rule for violation in caught.value.violations] == ["capability"]


async def test_read(both: Both) -> None:
    """Who wants no pieces reads the whole text at once."""
    async with both.aio.complete(QUERY) as answer:
        assert await answer.read() == f"You said: {QUERY}"
    with both.sync.complete(QUERY) as other:
        assert await asyncio.to_thread(other.read) == answer.text
    assert other.finish


async def test_embed_and_profiles(both: Both) -> None:
    """The small calls bring what the contract says; an activation is seen by both."""
    vectors = await both.call("embed", ["a", QUERY], profile="south")
    assert [len(vector) for vector in vectors] == [512, 512]
    assert [p.name for p in await both.call("profiles") if p.active] == ["north"]
    active = await both.call("activate_profile", "south")
    assert (active.name, active.active) == ("south", True)
    assert (await both.call("decide", QUERY)).model == "south_model"


async def test_sessions_and_status(both: Both) -> None:
    """A session id reaches the server from every call of both clients, and either ends it."""
    assert not (await both.aio.decide(QUERY, session_id="s")).pinned
    assert (await asyncio.to_thread(both.sync.decide, QUERY, session_id="s")).pinned
    async with both.aio.complete(QUERY, session_id="s") as answer:
        await answer.read()
    assert answer.decision
    assert answer.decision.pinned
    caller = pb.Caller(tenant="lab")
    await asyncio.to_thread(both.sync.decide, QUERY, session_id="s", caller=caller)
    status = await both.aio.status()
    assert (status.sessions, status.requests) == (2, 4)
    assert (await asyncio.to_thread(both.sync.status)).active == status.active
    assert (await both.aio.end_session("s")).requests == 3
    assert (await asyncio.to_thread(both.sync.end_session, "s", tenant="lab")).requests == 1
    error = await both.error("end_session", "s")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SESSION")


async def test_errors(both: Both) -> None:
    """Every method fails with a RouterError that says code, reason and what was wrong."""
    for method, arguments in {
        "decide": (QUERY,),
        "embed": (["a"],),
        "activate_profile": (),
    }.items():
        named = {"name" if method == "activate_profile" else "profile": "west"}
        error = await both.error(method, *arguments, **named)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_PROFILE")
        assert str(error).startswith("NOT_FOUND (UNKNOWN_PROFILE): there is no profile")
    with pytest.raises(RouterError, match="UNKNOWN_PROFILE"):
        await both.aio.complete(QUERY, profile="west").read()
    with both.sync.complete(QUERY, profile="west") as answer, pytest.raises(RouterError):
        await asyncio.to_thread(answer.read)
    assert answer.finish is None


async def test_no_server() -> None:
    """Where nobody listens, every method of both clients soon says UNAVAILABLE."""
    async with RouterClient("127.0.0.1:1") as aio:
        with SyncRouterClient("127.0.0.1:1") as sync:
            both = Both(aio, sync)
            start = time.monotonic()
            errors = await asyncio.gather(
                both.error("decide", QUERY),
                both.error("batch_decide", [QUERY]),
                both.error("embed", ["a"]),
                both.error("profiles"),
                both.error("activate_profile", "north"),
            )
            assert {(e.code, e.reason) for e in errors} == {(grpc.StatusCode.UNAVAILABLE, "")}
            with pytest.raises(RouterError, match="UNAVAILABLE"):
                await aio.complete(QUERY).read()
            with sync.complete(QUERY) as answer, pytest.raises(RouterError, match="UNAVAILABLE"):
                answer.read()
    assert time.monotonic() - start < LONG_SECONDS


@pytest_asyncio.fixture
async def silent_address() -> AsyncIterator[str]:
    """A port that takes connections and never says a word."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with listening(hold) as address:
        yield address


async def test_deadline_of_a_call(silent_address: str) -> None:
    """A timeout is the deadline of the call, in both clients, also where the server is mute."""
    start = time.monotonic()
    async with RouterClient(silent_address) as aio:
        with pytest.raises(RouterError) as one:
            await aio.decide(QUERY, timeout=0.2)
    with SyncRouterClient(silent_address) as sync, pytest.raises(RouterError) as other:
        await asyncio.to_thread(sync.decide, QUERY, timeout=0.2)
    assert one.value.code is other.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < LONG_SECONDS


class Endless:
    """An upstream that says a word and then nothing, for as long as somebody listens."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = {"choices": [{"index": 0, "delta": {"content": "word "}}]}
        try:
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            while True:
                await asyncio.sleep(0.02)
                await response.write(b": still here\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
        return response


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Endless]:
    yield Endless()


@pytest_asyncio.fixture
async def endless_server(upstream: Endless) -> AsyncIterator[RunningServer]:
    """A server whose only model never finishes."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.answer)
    async with serving(app) as address:
        profile = {
            "backends": {"b": {"provider": "vllm", "url": f"http://{address}/v1"}},
            "models": {"m": {"backend": "b", "id": "endless"}},
            "routes": {"default": {"model": "m"}},
        }
        async with running_server(profile) as server:
            yield server


async def test_leaving_early_cancels(upstream: Endless, endless_server: RunningServer) -> None:
    """Who leaves the context in mid-answer ends the call, all the way to the upstream."""
    async with RouterClient(endless_server.address) as client:
        async with client.complete(QUERY) as answer:
            async for delta in answer:
                assert delta.text == "word "
                break
        await asyncio.wait_for(upstream.left.wait(), LONG_SECONDS)
    assert (answer.text, answer.finish) == ("word ", None)


async def test_leaving_early_cancels_in_threads(
    upstream: Endless, endless_server: RunningServer
) -> None:
    """The synchronous client does the same."""

    def leave() -> None:
        with SyncRouterClient(endless_server.address) as client, client.complete(QUERY) as answer:
            assert next(iter(answer)).text == "word "

    await asyncio.to_thread(leave)
    await asyncio.wait_for(upstream.left.wait(), LONG_SECONDS)


async def test_deadline_in_mid_answer(upstream: Endless, endless_server: RunningServer) -> None:
    """A deadline that passes in mid-answer is an error without a finish; the upstream is left."""
    async with RouterClient(endless_server.address) as client:
        async with client.complete(QUERY, timeout=3.0) as answer:
            with pytest.raises(RouterError) as caught:
                await answer.read()
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (answer.text, answer.finish) == ("word ", None)
        await asyncio.wait_for(upstream.left.wait(), LONG_SECONDS)
