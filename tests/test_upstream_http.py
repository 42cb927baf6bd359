"""The HTTP client to upstreams: its clocks, its backpressure, its connections and its headers.

Every upstream is a socket on loopback that says what a test wants it to say, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from semroute_service.backends.base import BackendError, ChatRequest, Clocks, End
from semroute_service.backends.http import HttpClient
from semroute_service.backends.openai_chat import OpenAIChatBackend
from semroute_service.decision import ErrorClass
from semroute_service.profile import Backend, Model, load_providers
from semroute_service.query import Message, Options, Role, Sensitivity
from sockets import listening
from upstream import GENEROUS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Answer: TypeAlias = "Callable[[asyncio.StreamWriter], Awaitable[None]]"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
STREAM = HEAD + b"\r\n"
END = b"0\r\n\r\n"
SHORT = 0.2
"""Seconds of a clock that is meant to run out."""


def part(data: bytes) -> bytes:
    """As a part of a chunked answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Talk:
    """An upstream that answers every request alike. ``left`` is set when its asker is gone."""

    answer: Answer
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    line for line in head.lower().split(b"\r\n") if b"content-length" in line
                ]
                await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                self.requests.append(head)
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
            raise

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer, and notice meanwhile where the asker leaves; no other request comes before."""
        answering = asyncio.ensure_future(self.answer(writer))
        leaving = asyncio.ensure_future(_gone(reader))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if answering.done():
            return answering.result()
        answering.cancel()
        raise ConnectionResetError


async def _gone(reader: asyncio.StreamReader) -> None:
    while not (reader.at_eof() or reader.exception()):
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def talking(answer: Answer) -> AsyncIterator[Talk]:
    talk = Talk(answer)
    async with listening(talk.serve) as address, asyncio.timeout(GENEROUS):
        talk.url = f"http://{address}/v1"
        yield talk


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def backend(url: str, **facts: Any) -> Backend:
    provider = load_providers()["vllm"].model_copy(update=facts)
    return Backend("it", provider, url, True, "", Sensitivity.RESTRICTED)


async def read(client: HttpClient, url: str, clocks: Clocks, pause: float = 0) -> bytes:
    """The whole answer, by a reader that pauses after every piece."""
    async with client.post(backend(url), "/chat/completions", {}, clocks) as chunks:
        data = b""
        async for chunk in chunks:
            data += chunk
            await asyncio.sleep(pause)
        return data


async def test_the_clock_of_the_connection(client: HttpClient, full: str) -> None:
    """A host that does not take the connection is told apart from one that does not answer."""
    with pytest.raises(BackendError) as raised:
        async with asyncio.timeout(GENEROUS):
            await read(client, full, Clocks(connect=SHORT, headers=GENEROUS))
    assert raised.value.error_class is ErrorClass.PROVIDER_CONNECT
    assert raised.value.detail.startswith("connect:")


async def test_the_clock_of_the_headers(client: HttpClient) -> None:
    """It begins with the connection, however little that one was given, and ends with the
    headers."""

    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(GENEROUS)

    async with talking(silent) as talk:
        with pytest.raises(BackendError) as raised:
            await read(client, talk.url, Clocks(connect=SHORT / 4, headers=SHORT))
    assert raised.value.error_class is ErrorClass.PROVIDER_TIMEOUT
    assert raised.value.detail.startswith("headers:")


async def test_headers_may_take_longer_than_the_connection(client: HttpClient) -> None:
    """The clock of the connection stops when it stands, on a new connection and on an old one."""

    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * SHORT)
        writer.write(STREAM + part(b"data: x\n\n") + END)

    async with talking(late) as talk:
        for _ in range(2):
            assert await read(client, talk.url, Clocks(connect=SHORT)) == b"data: x\n\n"
    assert talk.connections == 1


async def test_the_clock_of_the_bytes(client: HttpClient) -> None:
    """An upstream that falls silent in the middle is left."""

    async def stalls(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + part(b"data: x\n\n"))
        await asyncio.sleep(GENEROUS)

    async with talking(stalls) as talk:
        with pytest.raises(BackendError) as raised:
            await read(client, talk.url, Clocks(idle_bytes=SHORT))
        assert raised.value.error_class is ErrorClass.PROVIDER_TIMEOUT
        assert raised.value.detail.startswith("idle_bytes:")
        await talk.left.wait()


async def test_comments_keep_a_stream_alive(client: HttpClient) -> None:
    """Bytes that are no tokens reset the clock of the bytes."""

    async def waits(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for _ in range(8):
            writer.write(part(b": alive\n\n"))
            await asyncio.sleep(SHORT / 4)
        writer.write(part(b"data: x\n\n") + END)

    async with talking(waits) as talk:
        assert (await read(client, talk.url, Clocks(idle_bytes=SHORT))).endswith(b"data: x\n\n")


async def test_a_slow_reader_is_not_the_upstreams_silence(client: HttpClient) -> None:
    """While nobody asks for more no clock runs, whether or not bytes are waiting."""

    async def two(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + part(b"data: 1\n\n"))
        await asyncio.sleep(1.5 * SHORT)
        writer.write(part(b"data: 2\n\n") + END)

    async with talking(two) as talk:
        data = await read(client, talk.url, Clocks(idle_bytes=SHORT), pause=2 * SHORT)
    assert data == b"data: 1\n\ndata: 2\n\n"


async def test_a_slow_reader_slows_the_upstream(client: HttpClient) -> None:
    """What is not read is not fetched: the upstream cannot send on until somebody asks for more."""
    sent = 0
    block = part(b"data: " + b"x" * 65_536 + b"\n\n")

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM)
        while True:
            writer.write(block)
            await writer.drain()
            sent += len(block)

    async def settled() -> int:
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(SHORT)
        return before

    async with (
        talking(endless) as talk,
        client.post(backend(talk.url), "/chat/completions", {}) as chunks,
    ):
        await anext(chunks)
        stopped = await settled()
        largest = 0
        while sent == stopped:
            largest = max(largest, len(await anext(chunks)))
        assert largest < 1_000_000


async def test_leaving_closes_the_connection_at_once(client: HttpClient) -> None:
    """A caller that leaves before the headers, or in the middle, leaves the upstream, too."""

    async def never(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(GENEROUS)

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(part(b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'))
            await writer.drain()
            await asyncio.sleep(0.01)

    async with talking(never) as talk:
        asking = asyncio.ensure_future(read(client, talk.url, Clocks()))
        while not talk.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        await talk.left.wait()
    async with talking(endless) as talk:
        model = Model("it", "m", backend(talk.url), frozenset())
        request = ChatRequest(model, (Message(Role.USER, ("x",)),), Options())
        stream = OpenAIChatBackend(client).stream(request)
        await anext(stream)
        await stream.aclose()
        await talk.left.wait()


WHOLE = b'data: {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}\n\n'


async def test_a_whole_answer_leaves_its_connection_to_the_next(client: HttpClient) -> None:
    """The end of the body may come a moment after the end of the answer, which does not wait for
    it; one whose body has no end is closed."""
    ending = True

    async def late(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + part(WHOLE))
        await asyncio.sleep(0.05)
        if ending:
            writer.write(END)
        else:
            await asyncio.sleep(GENEROUS)

    async with talking(late) as talk:
        model = Model("it", "m", backend(talk.url), frozenset())
        request = ChatRequest(model, (Message(Role.USER, ("x",)),), Options())
        for _ in range(3):
            events = [event async for event in OpenAIChatBackend(client).stream(request)]
            assert isinstance(events[-1], End)
            await asyncio.sleep(0.2)
        assert talk.connections == 1
        ending = False
        events = [event async for event in OpenAIChatBackend(client).stream(request)]
        assert isinstance(events[-1], End)
        await talk.left.wait()


async def test_a_check_leaves_no_connection_to_a_call(client: HttpClient) -> None:
    """Some servers close it without a word after an error, and the call would be lost on it."""

    async def failing(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno")

    async with talking(failing) as talk:
        for _ in range(2):
            with pytest.raises(BackendError):
                await client.get_models(backend(talk.url), GENEROUS)
            with pytest.raises(BackendError):
                await read(client, talk.url, Clocks())
        assert len(talk.requests) == 4
        assert talk.connections == 3  # one for each check, and one for the calls


async def test_no_cookie_is_kept(client: HttpClient) -> None:
    """What an upstream would have remembered about one caller is not sent for another."""

    async def sets(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"set-cookie: who=me; path=/\r\n\r\n" + END)

    async with talking(sets) as talk:
        for _ in range(2):
            await read(client, talk.url, Clocks())
    assert len(talk.requests) == 2
    assert not any(b"cookie" in request.lower() for request in talk.requests)


async def test_an_error_without_end_is_told_by_its_status(client: HttpClient) -> None:
    """An error body that only grows takes neither the time nor the memory of the router."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 So\r\ntransfer-encoding: chunked\r\nretry-after: 3\r\n\r\n")
        while True:
            writer.write(part(b"x" * 10_000))
            await writer.drain()

    async with talking(endless) as talk:
        with pytest.raises(BackendError) as raised:
            await read(client, talk.url, Clocks())
    assert raised.value.error_class is ErrorClass.PROVIDER_RATE_LIMIT
    assert raised.value.retry_after == 3


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + part(WHOLE) + END)


FACTS: dict[str, Any] = {
    "key_header": "x-api-key",
    "key_prefix": "Token ",
    "headers": {"x-version": "7"},
    "secret_headers": {"x-secret": "IT_SECRET"},
}


async def sent(client: HttpClient, talk: Talk, **facts: Any) -> dict[bytes, bytes]:
    """The headers that the upstream got."""
    async with client.post(backend(talk.url, **facts), "/chat/completions", {}) as chunks:
        await anext(chunks)
    lines = (line.partition(b":") for line in talk.requests[-1].split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines if value}


async def test_headers_are_those_of_the_catalogue(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, fixed and secret headers are sent as the provider's entry says, as they are now; what
    is not set is left out."""
    async with talking(whole) as talk:
        headers = await sent(client, talk, **FACTS)
        assert headers[b"x-version"] == b"7"
        assert {b"authorization", b"x-api-key", b"x-secret"}.isdisjoint(headers)
        monkeypatch.setenv("VLLM_API_KEY", "k")
        monkeypatch.setenv("IT_SECRET", "s")
        headers = await sent(client, talk, **FACTS)
        assert (headers[b"x-api-key"], headers[b"x-secret"]) == (b"Token k", b"s")
        assert b"authorization" not in headers


@pytest.mark.parametrize("value", ["a\nb", "é", "a\x7fb"], ids=ascii)
async def test_a_secret_that_no_header_can_carry(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """It is refused before anything is sent, and its value is not told."""
    monkeypatch.setenv("IT_SECRET", value)
    async with talking(whole) as talk:
        with pytest.raises(BackendError) as raised:
            await sent(client, talk, **FACTS)
        assert not talk.requests
    assert raised.value.error_class is ErrorClass.PROVIDER_CREDENTIALS
    assert value not in raised.value.detail


@pytest.mark.parametrize(
    ("raw", "error_class"),
    [
        (b"", ErrorClass.PROVIDER_CONNECT),
        (b"what is this?\r\n\r\n", ErrorClass.PROVIDER_PROTOCOL),
        (STREAM + part(b"data: x\n\n"), ErrorClass.PROVIDER_INTERRUPTED),
        (STREAM + part(b"data: x\n\n") + b"zz\r\n", ErrorClass.PROVIDER_INTERRUPTED),
        (HEAD + b"content-encoding: gzip\r\n\r\n" + part(b"no"), ErrorClass.PROVIDER_INTERRUPTED),
    ],
    ids=["no answer", "no HTTP", "cut", "no chunk", "no gzip"],
)
async def test_connections_that_break(
    client: HttpClient, raw: bytes, error_class: ErrorClass
) -> None:
    """A break before the headers is a broken connection, one after them an interruption, and no
    byte of the upstream's is in what is told."""

    async def breaks(writer: asyncio.StreamWriter) -> None:
        head, _, rest = raw.rpartition(part(b"data: x\n\n"))
        for piece in (head, rest):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(SHORT / 4)
        writer.close()
        await asyncio.sleep(GENEROUS)

    async with talking(breaks) as talk:
        with pytest.raises(BackendError) as raised:
            await read(client, talk.url, Clocks())
    assert raised.value.error_class is error_class
    assert "what is this" not in raised.value.detail


async def test_a_server_tells_its_figures(client: HttpClient) -> None:
    """Metrics stand beside /v1, behind a gateway too."""

    async def figures(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nwaits 3.0")

    async with talking(figures) as talk:
        assert await client.get_metrics(backend(talk.url), GENEROUS) == "waits 3.0"
        below = backend(talk.url.replace("/v1", "/coder/v1"))
        assert await client.get_metrics(below, GENEROUS) == "waits 3.0"
    assert talk.requests[0].startswith(b"GET /metrics ")
    assert talk.requests[1].startswith(b"GET /coder/metrics ")


async def test_a_whole_answer_that_is_no_stream(client: HttpClient) -> None:
    """It is fetched to its end, under the same clocks."""

    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + part(b"one "))
        await asyncio.sleep(SHORT)
        writer.write(part(b"two") + END)

    async with talking(slow) as talk:
        it = backend(talk.url)
        assert await client.fetch(it, "/embeddings", {}) == b"one two"
        with pytest.raises(BackendError) as raised:
            await client.fetch(it, "/embeddings", {}, Clocks(idle_bytes=SHORT / 4))
    assert raised.value.error_class is ErrorClass.PROVIDER_TIMEOUT


async def test_a_connection_that_is_reset_while_it_rests_is_nobodys_error(
    client: HttpClient,
) -> None:
    """It breaks after its answer was whole: nothing is raised, nor logged as never retrieved."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    reset = asyncio.Event()

    async def whole(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + part(b"data: [DONE]\n\n"))
        await asyncio.sleep(0.05)
        writer.write(END)
        await reset.wait()
        linger = struct.pack("ii", 1, 0)  # closing is a reset then
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        raise ConnectionResetError

    async with talking(whole) as talk:
        assert await read(client, talk.url, Clocks())
        reset.set()
        await asyncio.sleep(0.1)
        assert await read(client, talk.url, Clocks())  # lets go of the broken connection
    gc.collect()
    assert talk.connections == 2
    assert unheard == []
