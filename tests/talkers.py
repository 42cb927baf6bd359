"""Servers on loopback that answer each path as a test tells them, well or badly.

async with talkers({"it": {"/v1/models": models("one", "two")}}) as up:
    ...  # up["it"].url is the base that a profile wants, up["it"].asked what it was asked
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Answer: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def http(status: int, body: str = "") -> Answer:
    """A whole answer."""

    async def write(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} So\r\ncontent-length: {len(body.encode())}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n{body}".encode())

    return write


def models(*ids: str) -> Answer:
    """A model list."""
    return http(200, json.dumps({"data": [{"id": name, "object": "model"} for name in ids]}))


def drip(start: bytes, piece: bytes, seconds: float) -> Answer:
    """What starts well and never ends: a piece every so many seconds."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            await writer.drain()
            await asyncio.sleep(seconds)
            writer.write(piece)

    return write


async def silence(writer: asyncio.StreamWriter) -> None:
    """Not a byte."""
    await asyncio.sleep(3600)


@dataclass
class Talker:
    """A server that answers by path, 404 elsewhere, and notes what it was asked."""

    answers: Mapping[str, Answer]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split(" ", 2)[1]
            self.asked.append(path)
            await self.answers.get(path, http(404))(writer)
            await writer.drain()
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def talkers(servers: Mapping[str, Mapping[str, Answer]]) -> AsyncIterator[dict[str, Talker]]:
    """Serve all of them, by name, until the end."""
    talking: set[asyncio.Task[None]] = set()
    async with contextlib.AsyncExitStack() as stack:
        made = {name: Talker(answers) for name, answers in servers.items()}
        for talker in made.values():

            def start(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, of: Talker = talker
            ) -> None:
                talking.add(asyncio.create_task(of.talk(reader, writer)))

            server = await asyncio.start_server(start, "127.0.0.1", 0)
            stack.callback(server.close)
            talker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield made
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
