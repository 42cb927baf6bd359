"""A real OpenAI-compatible upstream on loopback, which behaves or misbehaves as a test tells it.

    async with upstream(Status(503), stream(say("hello"), finish())) as server:
        ...  # the first request is refused; every later one gets the stream

It notes every request, and whether the one who asked went away before the answer was whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web

from semroute import Completion, RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import running_server
from sockets import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

GENEROUS = 10.0
"""Seconds after which something that should have happened will not happen any more."""
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7}


@dataclass(frozen=True)
class Status:
    """An answer that is no stream."""

    code: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Bytes in the place of an HTTP answer, and the connection is closed."""

    data: bytes = b""


@dataclass(frozen=True)
class Wait:
    """Nothing comes for so long. In the place of a behaviour not even headers come."""

    seconds: float = 3600


class Cut:
    """The connection breaks."""


Step: TypeAlias = bytes | dict[str, Any] | Wait | Cut


@dataclass(frozen=True)
class Stream:
    """A 200 that sends its steps: bytes as they are, a dict as one event."""

    steps: tuple[Step, ...]
    content_type: str = "text/event-stream"


Behaviour: TypeAlias = Status | Raw | Wait | Stream


def stream(*steps: Step) -> Stream:
    """These steps and nothing else."""
    return Stream(steps)


def answer(text: str = "well", usage: Mapping[str, Any] | None = None) -> Stream:
    """A whole, flawless answer."""
    return stream(say(text), finish(), {"choices": [], "usage": usage or USAGE}, DONE)


def say(content: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk with a piece of the answer."""
    return {"choices": [{"index": 0, "delta": {"content": content, **delta}}]}


def finish(reason: str = "stop", **rest: Any) -> dict[str, Any]:
    """The chunk that says how the answer ended."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **rest}


def failure(message: str, **rest: Any) -> dict[str, Any]:
    """An error object, as a body or inside a stream."""
    return {"error": {"message": message, **rest}}


@dataclass
class Received:
    """A request that reached the upstream. ``left`` is set when the asker went away early."""

    headers: Mapping[str, str]
    body: Any
    at: float
    left: asyncio.Event


@dataclass
class Upstream:
    """Plays its behaviours in order, the last one for ever; lists ``models``."""

    behaviours: tuple[Behaviour, ...]
    models: tuple[str, ...] = ()
    url: str = ""
    requests: list[Received] = field(default_factory=list)
    listed: int = 0

    @property
    def body(self) -> dict[str, Any]:
        """What the only request asked."""
        (request,) = self.requests
        body: dict[str, Any] = request.body
        return body

    async def list_models(self, _: web.Request) -> web.Response:
        self.listed += 1
        return web.json_response({"data": [{"id": model} for model in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        behaviour = self.behaviours[min(len(self.requests), len(self.behaviours) - 1)]
        received = Received(
            request.headers, await request.json(), time.monotonic(), asyncio.Event()
        )
        self.requests.append(received)
        try:
            return await _play(behaviour, request)
        except (asyncio.CancelledError, ConnectionResetError):
            received.left.set()
            raise


async def _play(behaviour: Behaviour, request: web.Request) -> web.StreamResponse:
    assert request.transport
    match behaviour:
        case Status(code, body, headers):
            text = body if isinstance(body, str) else json.dumps(body or failure("no"))
            return web.Response(status=code, text=text, headers=headers)
        case Raw(data):
            request.transport.write(data)
            request.transport.close()
            return web.Response()
        case Wait(seconds):
            await asyncio.sleep(seconds)
            return web.Response()
    assert isinstance(behaviour, Stream)
    response = web.StreamResponse(headers={"content-type": behaviour.content_type})
    await response.prepare(request)
    for step in behaviour.steps:
        match step:
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Cut():
                request.transport.abort()
                return response
            case bytes():
                await response.write(step)
            case chunk:
                await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write_eof()
    return response


@contextlib.asynccontextmanager
async def upstream(
    *behaviours: Behaviour, models: tuple[str, ...] = (), port: int = 0
) -> AsyncIterator[Upstream]:
    """Serve on loopback; ``url`` is the base that a profile wants."""
    server = Upstream(behaviours or (answer(),), models)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_post("/v1/messages", server.complete)
    app.router.add_get("/v1/models", server.list_models)
    async with serving(app, port) as address:
        server.url = f"http://{address}/v1"
        yield server


def nobody() -> str:
    """A base URL at which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


def profile(
    *servers: Upstream | str,
    models: Mapping[str, Any] | None = None,
    backends: Mapping[str, Any] | None = None,
    row: Mapping[str, Any] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """A profile in which first, second, third answer, each standing behind the one before.

    All are vLLM; ``models`` and ``backends`` say what differs, by name, and ``row`` adds to the
    only row.
    """
    names = ["first", "second", "third"][: len(servers)]
    urls = [server if isinstance(server, str) else server.url for server in servers]
    own_backends, own_models = backends or {}, models or {}
    return {
        "backends": {
            name: {"provider": "vllm", "url": url, **own_backends.get(name, {})}
            for name, url in zip(names, urls, strict=True)
        },
        "models": {
            name: {"backend": name, "id": f"{name}-id", **own_models.get(name, {})}
            for name in names
        },
        "routes": {"default": {"model": "first", "fallback_chain": names[1:], **(row or {})}},
        **rest,
    }


@contextlib.asynccontextmanager
async def routed(profile: Mapping[str, Any], **settings: Any) -> AsyncIterator[RouterClient]:
    """A client of a real semroute server with this profile."""
    async with (
        running_server(profile=profile, **settings) as server,
        RouterClient(server.address) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def chain(
    *behaviours: Behaviour | tuple[Behaviour, ...], home: Path | None = None, **parts: Any
) -> AsyncIterator[tuple[RouterClient, list[Upstream]]]:
    """A client, and the upstreams first, second, third that behave like this, for its server.

    Further ``parts`` are those of ``profile``; the server keeps its ledger in ``home``.
    """
    settings = {"home": home} if home else {}
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(upstream(*(b if isinstance(b, tuple) else (b,))))
            for b in behaviours
        ]
        client = await stack.enter_async_context(routed(profile(*servers, **parts), **settings))
        yield client, servers


@dataclass
class Told:
    """What a caller was told. ``error`` is None where the answer is whole."""

    answer: Completion
    deltas: list[pb.Delta]
    error: RouterError | None = None

    @property
    def text(self) -> str:
        """The answer's text, without what a restart discarded."""
        return self.answer.text

    @property
    def finish(self) -> pb.Finish:
        assert self.answer.finish is not None, self.error
        return self.answer.finish

    @property
    def failures(self) -> list[tuple[str, str]]:
        """The attempt events: the model, and the error class without its prefix."""
        return [outcome(attempt) for attempt in self.answer.attempts]

    @property
    def everything(self) -> str:
        """All of it as text, to look for what should not be in it."""
        error = self.error
        parts = [self.answer.decision, self.answer.attempts, self.deltas, self.answer.finish]
        return "".join(map(str, [*parts, error, error and error.violations]))


def outcome(attempt: pb.Attempt) -> tuple[str, str]:
    """The model, and how its attempt failed; OK if it did not."""
    name = pb.ErrorClass.Name(attempt.error_class).removeprefix("ERROR_CLASS_")
    return attempt.model, "OK" if attempt.outcome == pb.ATTEMPT_OUTCOME_SUCCEEDED else name


async def ask(
    client: RouterClient, query: str | Sequence[pb.Message] = "hello there", **options: Any
) -> Told:
    """Complete ``query``, and collect what comes whether or not it ends well."""
    async with client.complete(query, **{"timeout": 3 * GENEROUS, **options}) as answer:
        told = Told(answer, [])
        try:
            async for delta in answer:
                told.deltas.append(delta)
        except RouterError as error:
            told.error = error
    return told
