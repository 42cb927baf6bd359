"""An OpenAI-compatible upstream that fails in every way there is: the model's name picks the fault.

    async with fault_server() as server:
        ...  # POST to server.url + "/chat/completions" with "model": "cut:5"
        assert server.received[0].left

It answers ``/v1/chat/completions`` and ``/v1/models``, ``/health`` and ``/metrics``, and tells at
``/log`` what it received.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, TextIO

from aiohttp import web

from semroute_service.faults import answers
from semroute_service.faults.behaviours import Asked, Drip, Hang, Memory, Other, Refuse, Step, Wait
from semroute_service.faults.catalogue import FAULTS, LONGEST_SECONDS, UnknownFaultError, parse
from semroute_service.faults.journal import Journal, Received, key_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

_MOST_BYTES = 64 * 1024 * 1024
_BREATH = 64
"""After so many pieces other requests have their turn, however fast this one is read."""


class FaultServer:
    """``url`` is the base that a profile wants, ``address`` the same without ``/v1``."""

    def __init__(
        self, seed: int | None = None, log: TextIO | None = None, models: Iterable[str] = ()
    ) -> None:
        self.address = ""
        self.journal = Journal(log)
        self.waiting = 0
        """What ``/metrics`` says of the queue's length."""
        self.healthy = True
        """Whether ``/health`` says 200 or 503."""
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._listed = dict.fromkeys([*FAULTS, *models])
        self._memories: dict[str, Memory] = {}
        self._closing = False

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    @property
    def received(self) -> Sequence[Received]:
        """The requests so far, in the order in which they came."""
        return self.journal.received

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=_MOST_BYTES)
        application.add_routes(
            [
                web.post("/v1/chat/completions", self._complete),
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/log", self._log),
            ]
        )
        return application

    def close(self) -> None:
        """From now on it is not the askers who leave."""
        self._closing = True

    async def _models(self, _: web.Request) -> web.Response:
        """Every fault, and the names with parameters that were given or have been asked for."""
        names = self._listed | dict.fromkeys(self._memories)
        models = [
            {"id": n, "object": "model", "owned_by": "semroute", "description": parse(n)[0].says}
            for n in names
        ]
        return web.json_response({"object": "list", "data": models})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="\n".join(self.journal.metrics(self.waiting)) + "\n")

    async def _log(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": [r.as_dict() for r in self.received]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            model, stream = str(body["model"]), bool(body.get("stream"))
            question = _question(body)
            fault, parameter, written = parse(model)
        except UnknownFaultError as error:
            told = f"{error}; GET /v1/models lists them"
            return web.json_response(answers.error(told, "model_not_found"), status=404)
        except (ValueError, TypeError, LookupError, AttributeError):
            wrong = "the body must be a JSON object with model and messages"
            return web.json_response(answers.error(wrong, 400), status=400)
        received = self.journal.begin(model, key_of(request.headers), stream=stream)
        memory = self._memories.setdefault(model, Memory())
        memory.asked += 1
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        form = answers.Stream(model, usage=usage) if stream else answers.Body(model)
        asked = Asked(parameter, written, question, form, memory, time.time(), self._random)
        return await self._play(request, received, asked, fault.script(asked))

    async def _play(
        self, request: web.Request, received: Received, asked: Asked, steps: Iterator[Step]
    ) -> web.StreamResponse:
        left = False
        player = _Player(request, received, asked)
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await player.play(steps)
        except TimeoutError:
            return player.hang()
        except ConnectionError:
            left = True
            return player.hang()
        except asyncio.CancelledError:
            left = not self._closing
            raise
        finally:
            received.fault = asked.became or received.model
            self.journal.end(received, left=left)


class _Player:
    """Plays one script to one connection."""

    def __init__(self, request: web.Request, received: Received, asked: Asked) -> None:
        assert request.transport
        self._request = request
        self._transport = request.transport
        self._received = received
        self._asked = asked
        self._response: web.StreamResponse | None = None

    async def play(self, steps: Iterator[Step]) -> web.StreamResponse:
        """All steps, or those up to one that ends the answer."""
        for step in steps:
            match step:
                case bytes():
                    await self._send(step)
                case Wait(seconds):
                    await asyncio.sleep(min(seconds, 2 * LONGEST_SECONDS))
                case Drip(pieces, seconds):
                    await self._drip(pieces, seconds)
                    return self.hang()
                case Hang(reset):
                    return self.hang(reset=reset)
                case Refuse(status, body, headers):
                    self._received.status = status
                    return web.json_response(body, status=status, headers=headers)
                case Other(media, body):
                    self._received.status = 200
                    return web.Response(body=body, content_type=media)
        response = await self._begun()
        await response.write_eof()
        return response

    def hang(self, *, reset: bool = False) -> web.StreamResponse:
        """Close the connection, whatever was promised on it."""
        if reset:
            _reset_on_close(self._transport.get_extra_info("socket"))
            self._transport.abort()
        else:
            self._transport.close()
        return self._response or web.Response()

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            self._received.status = 200
            media = self._asked.form.media
            self._response = web.StreamResponse(headers={"content-type": media})
            await self._response.prepare(self._request)
        return self._response

    async def _send(self, piece: bytes) -> None:
        response = await self._begun()
        await response.write(piece)
        self._received.pieces += 1
        if self._received.pieces % _BREATH == 0:
            await asyncio.sleep(0)

    async def _drip(self, pieces: Iterator[bytes], seconds: float) -> None:
        for piece in pieces:
            self._transport.write(piece)
            await asyncio.sleep(seconds)


def _question(body: dict[str, Any]) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def _reset_on_close(connection: Any) -> None:
    """With no time to linger, the kernel ends the connection by a reset."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@contextlib.asynccontextmanager
async def fault_server(
    *models: str,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int | None = None,
    log: TextIO | None = None,
) -> AsyncIterator[FaultServer]:
    """Serve until the block ends; port 0 takes a free one. ``models`` are names with parameters
    that ``/v1/models`` lists beside the faults, because a router may prefer what is listed. With
    the same ``seed``, ``random`` chooses the same again. ``log`` gets a JSON line for each request
    when it has ended.

    Raises ``OSError`` where it cannot listen, and ``UnknownFaultError``.
    """
    for model in models:
        parse(model)
    server = FaultServer(seed, log, models)
    runner = web.AppRunner(
        server.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name = f"[{host}]" if ":" in host else host
        server.address = f"http://{name}:{runner.addresses[0][1]}"
        yield server
    finally:
        server.close()
        await runner.cleanup()
