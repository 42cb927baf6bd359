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

from sockets import listening

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
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split(" ", 2)[1]
        self.asked.append(path)
        await self.answers.get(path, http(404))(writer)
        await writer.drain()


@contextlib.asynccontextmanager
async def talkers(servers: Mapping[str, Mapping[str, Answer]]) -> AsyncIterator[dict[str, Talker]]:
    """Serve all of them, by name, until the end."""
    async with contextlib.AsyncExitStack() as stack:
        made = {name: Talker(answers) for name, answers in servers.items()}
        for talker in made.values():
            address = await stack.enter_async_context(listening(talker.talk))
            talker.url = f"http://{address}/v1"
        yield made
