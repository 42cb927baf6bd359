"""The ways of stream.py from its client to the upstream: straight there, by semroute, by LiteLLM.

Each is asked the same, and notes when every piece of an answer arrived. What is in the pieces is
read afterwards, so that reading costs no way anything while it is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc

from semroute.v1 import router_pb2 as pb
from stream_http2 import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_servers import Served

QUERY = "write a function that adds two numbers"
"""The same each time: a decision on it is remembered."""
IDLE_SECONDS = 3.0
"""Servers close what is idle for longer, such as five seconds."""
COMPLETE = "/semroute.v1.RouterService/Complete"


@dataclass
class Answer:
    """One answer as it came. Times are of ``time.monotonic``, in seconds."""

    asked: float = field(default_factory=time.monotonic)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    whole: bool = False

    @property
    def seconds(self) -> float:
        return self.pieces[-1][0] - self.asked


class Way(Protocol):
    """A way to the upstream. Make it inside the event loop that it is used on."""

    async def ask(self, model: str, answer: Answer | None = None) -> Answer:
        """The answer of ``model``, put into ``answer`` as it comes. Cancelled, it hangs up."""

    def words(self, answer: Answer) -> Iterator[tuple[float, str]]:
        """The text, each part with when it arrived."""

    def decided(self, answer: Answer) -> float:
        """Seconds that a decision took before the answer; 0 where nobody decides."""

    async def close(self) -> None: ...


class Http:
    """A lean HTTP client: writes what is prepared, and takes bytes until the last chunk."""

    def __init__(self, served: Served) -> None:
        self._port = served.port
        self._key = served.key
        self._idle: list[_Socket] = []
        self._requests: dict[str, bytes] = {}

    async def ask(self, model: str, answer: Answer | None = None) -> Answer:
        request = self._requests.get(model) or self._request(model)
        connection = self._rested() or await self._connect()
        try:
            answer = await connection.ask(request, answer or Answer())
        except BaseException:
            connection.transport.abort()
            raise
        self._idle.append(connection)
        return answer

    def words(self, answer: Answer) -> Iterator[tuple[float, str]]:
        for at, data in _events(answer.pieces):
            if data.startswith(b"{"):
                for choice in json.loads(data)["choices"]:
                    if text := choice["delta"].get("content"):
                        yield at, text

    def decided(self, answer: Answer) -> float:
        return 0.0

    async def close(self) -> None:
        for connection in self._idle:
            connection.transport.abort()

    def _request(self, model: str) -> bytes:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": QUERY}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        head += f"authorization: Bearer {self._key}\r\n" if self._key else ""
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self._requests[model] = head.encode() + content
        return self._requests[model]

    def _rested(self) -> _Socket | None:
        """A connection that is still open, and will be when the request arrives."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                if time.monotonic() - connection.used < IDLE_SECONDS:
                    return connection
                connection.transport.abort()
        return None

    async def _connect(self) -> _Socket:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Socket, "127.0.0.1", self._port))[1]


class _Socket(asyncio.Protocol):
    """One connection, which answers one question at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.used = time.monotonic()
        self._done: asyncio.Future[None] | None = None

    async def ask(self, request: bytes, answer: Answer) -> Answer:
        self._done = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._tail = b""
        self.transport.write(request)
        await self._done
        self.used = time.monotonic()
        return answer

    def data_received(self, data: bytes) -> None:
        self._answer.pieces.append((time.monotonic(), data))
        self._tail = (self._tail + data)[-7:] if len(data) < 7 else data[-7:]
        if self._tail == b"\r\n0\r\n\r\n" and self._done and not self._done.done():
            self._answer.whole = True
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("the answer broke off"))


def _events(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of each event, with when its last byte arrived."""
    body = b""
    for at, part in _dechunked(pieces):
        *events, body = (body + part).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield at, event[6:]


def _dechunked(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The bodies of HTTP chunks, with when they were there."""
    waiting = b""
    in_head = True
    for at, data in pieces:
        waiting += data
        if in_head:
            head, found, rest = waiting.partition(b"\r\n\r\n")
            if not found:
                continue
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise RuntimeError(f"refused: {waiting[:300]!r}")
            waiting, in_head = rest, False
        start = 0
        while (line := waiting.find(b"\r\n", start)) > 0:
            size = int(waiting[start:line], 16)
            if len(waiting) < line + size + 4:
                break
            yield at, waiting[line + 2 : line + 2 + size]
            start = line + size + 4
        waiting = waiting[start:]


class Grpc:
    """semroute, or a bare server in its place, by a client as lean as the other."""

    def __init__(self, served: Served) -> None:
        self._port = served.port
        self._connection: asyncio.Future[Connection] | None = None
        self._requests: dict[str, bytes] = {}

    async def ask(self, model: str, answer: Answer | None = None) -> Answer:
        answer = answer or Answer()
        await self._ask(self._requests.get(model) or self._request(model), answer)
        if not answer.pieces:
            raise RuntimeError(f"{model}: the server said nothing")
        last = pb.CompleteResponse.FromString(answer.pieces[-1][1])
        answer.whole = last.HasField("finish")
        return answer

    async def _ask(self, request: bytes, answer: Answer) -> None:
        if self._connection is None:
            self._connection = asyncio.ensure_future(self._connect())
        await (await asyncio.shield(self._connection)).ask(request, answer)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        made = await loop.create_connection(partial(Connection, COMPLETE), "127.0.0.1", self._port)
        return made[1]

    def _request(self, model: str) -> bytes:
        message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=QUERY)])
        request = pb.CompleteRequest(
            query=pb.Query(messages=[message]), preferences=pb.Preferences(model=model)
        )
        self._requests[model] = request.SerializeToString()
        return self._requests[model]

    def words(self, answer: Answer) -> Iterator[tuple[float, str]]:
        for at, data in answer.pieces:
            if text := pb.CompleteResponse.FromString(data).delta.text:
                yield at, text

    def decided(self, answer: Answer) -> float:
        event = pb.CompleteResponse.FromString(answer.pieces[0][1])
        return event.decision.elapsed.total.ToTimedelta().total_seconds()

    async def close(self) -> None:
        if self._connection:
            (await self._connection).close()


class Grpcio(Grpc):
    """The same by Python's own client, as services in Python ask. Messages are taken as bytes."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{served.port}")
        self._complete: Any = self._channel.unary_stream(COMPLETE)

    async def _ask(self, request: bytes, answer: Answer) -> None:
        call = self._complete(request)
        try:
            async for event in call:
                answer.pieces.append((time.monotonic(), event))
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()
