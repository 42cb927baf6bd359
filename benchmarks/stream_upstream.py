"""The model server of stream.py: lean, so that it is never what is measured.

    python benchmarks/stream_upstream.py     # prints where it listens

It answers ``POST /v1/chat/completions`` as a stream, each event an HTTP chunk of its own, as most
model servers send it. The model's name says how:

    flood-N      N chunks as fast as they are taken, rendered beforehand, many in one write
    paced-N-MS   a chunk every MS milliseconds, which holds the time it was sent
    idle         one chunk, and then nothing until the caller leaves

Text is words, numbered from 0, so that a word that is lost or comes twice shows. ``GET /stats``
says how many chunks were sent and how many answers are open.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import random
import time
from typing import cast

import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHUNK = (
    '{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,'
    '"model":"bench","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}'
)
USAGE = '{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}'
PER_WRITE = 256
"""Chunks of a flood that leave in one write."""


def framed(data: str) -> bytes:
    """One event as one HTTP chunk."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def word(text: str) -> bytes:
    return framed(CHUNK % (json.dumps({"content": text}), "null"))


def ending(count: int) -> bytes:
    """Finish reason, usage and what says that nothing more comes."""
    usage = '{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    usage += f'"created":1700000000,"model":"bench","choices":[],"usage":{USAGE}}}'
    finish = framed(CHUNK % ("{}", '"stop"'))
    return finish + framed(usage % (count, count + 8)) + framed("[DONE]") + b"0\r\n\r\n"


@functools.lru_cache(maxsize=8)
def flood(count: int) -> list[tuple[int, bytes]]:
    """Writes, each with how many chunks it holds."""
    starts = range(0, count, PER_WRITE)
    blocks = [range(start, min(start + PER_WRITE, count)) for start in starts]
    return [(len(block), b"".join(word(f"{i} ") for i in block)) for block in blocks]


class Stats:
    """What the server has done."""

    sent = 0
    open = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it come one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=512 * 1024)

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()
        if self._answering:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if not found or len(rest) < length:
            return
        self._received = rest[length:]
        self._answer(head.split(b" ", 2)[1], rest[:length])

    def _answer(self, path: bytes, body: bytes) -> None:
        if body:
            model = json.loads(body)["model"]
            self._answering = asyncio.create_task(self._stream(model))
        elif path.startswith(b"/stats"):
            self._whole({"sent": Stats.sent, "open": Stats.open})
        else:
            self._whole({"object": "list", "data": [{"id": "idle", "object": "model"}]})

    def _whole(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    async def _stream(self, model: str) -> None:
        kind, *numbers = model.split("-")
        Stats.open += 1
        try:
            if kind == "flood":
                await self._flood(*map(int, numbers))
            elif kind == "paced":
                await self._paced(*map(int, numbers))
            else:
                self._transport.write(HEAD + word("0 "))
                Stats.sent += 1
                await asyncio.sleep(3600)
        finally:
            Stats.open -= 1

    async def _flood(self, count: int) -> None:
        writes = flood(count)
        head, last = HEAD, len(writes) - 1
        for i, (chunks, data) in enumerate(writes):
            self._transport.write(head + data + (ending(count) if i == last else b""))
            Stats.sent += chunks
            head = b""
            await self._may_write.wait()

    async def _paced(self, count: int, milliseconds: int) -> None:
        """Streams that begin together do not tick together. Timers cost less than sleeping."""
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        period = milliseconds / 1000
        start = loop.time() + random.random() * period * (count > 100)

        def tick(i: int) -> None:
            if done.done():
                return  # the caller has left
            self._transport.write(word(f"{i}:{time.monotonic_ns()} "))
            Stats.sent += 1
            if i + 1 < count:
                loop.call_at(start + (i + 1) * period, tick, i + 1)
            else:
                done.set_result(None)

        self._transport.write(HEAD)
        loop.call_at(start, tick, 0)
        await done
        self._transport.write(ending(count))


async def main() -> None:
    gc.disable()
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(f"serving on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
