"""An upstream that answers by what it is asked, and a batch for ``semroute complete --batch``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from processes import Ended
from semroute_service.testing import running_server
from sockets import serving
from upstream import DONE, GENEROUS, USAGE, finish, profile, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from semroute_service.testing import RunningServer

SEMROUTE = (sys.executable, "-m", "semroute_service.cli")
BROKEN = None
"""In the place of an answer: the connection breaks after the first word."""


@dataclass
class Desk:
    """An upstream that answers by what it is asked, and notes who was asked what, and how many at
    a time. A text in ``replies`` is answered by its next reply, a status or chunks, as long as it
    has one; one in ``held`` waits for ``free``."""

    replies: dict[str, list[int | list[dict[str, Any]] | None]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=lambda: dict(USAGE))
    left: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    url: str = ""

    @property
    def asked(self) -> Counter[str]:
        """How often each text was asked."""
        return Counter(body["messages"][-1]["content"] for body in self.bodies)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.bodies.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if text in self.held:
                await self.free.wait()
            await asyncio.sleep(0.005)  # long enough for others to come
            return await self._reply(text, request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.append(text)
            raise
        finally:
            self.now -= 1

    async def _reply(self, text: str, request: web.Request) -> web.StreamResponse:
        replies = self.replies.get(text)
        reply = replies.pop(0) if replies else [say(f"re {text}"), finish()]
        if isinstance(reply, int):
            return web.Response(status=reply, headers={"retry-after": "0"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in [say("half")] if reply is BROKEN else [*reply, {"usage": self.usage}]:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        if reply is BROKEN:
            assert request.transport
            request.transport.abort()
            return response
        await response.write(DONE)
        return response


@contextlib.asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Serve on loopback."""
    server = Desk()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.complete)
    async with serving(app) as address:
        server.url = f"http://{address}/v1"
        try:
            yield server
        finally:
            server.free.set()


@dataclass
class Place:
    """A folder with a batch in it, and the server that is asked."""

    folder: Path
    server: RunningServer
    desk: Desk

    @property
    def out(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def partial(self) -> Path:
        return self.folder / "out.jsonl.partial"

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in self.out.read_text(encoding="utf-8").strip().split("\n")
        ]

    @property
    def texts(self) -> list[str | None]:
        return [row.get("text") for row in self.rows]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The journal's lines."""
        lines = self.partial.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def kept(self) -> list[int]:
        """The lines that have a row in the journal."""
        return [entry["line"] for entry in self.entries if entry.get("row")]

    def write(self, *lines: Any) -> None:
        """The input; what is not text is written as JSON."""
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (self.folder / "in.jsonl").write_text("".join(f"{t}\n" for t in texts), encoding="utf-8")

    def command(self, *arguments: object) -> list[str]:
        files = ("--batch", self.folder / "in.jsonl", "--out", self.out)
        server = ("--server", self.server.address)
        return ["complete", *map(str, (*files, *server, *arguments))]


@contextlib.asynccontextmanager
async def placed(folder: Path) -> AsyncIterator[Place]:
    """Everything goes to the desk."""
    async with desk() as upstream, running_server(profile=simple(upstream)) as server:
        yield Place(folder, server, upstream)


def simple(upstream: Desk, **rest: Any) -> dict[str, Any]:
    """One model, which is not asked twice by the server itself."""
    capable = {"capabilities": ["tools", "images", "json_schema"]}
    return profile(
        upstream.url, behavior={"max_retries": 0}, **{"models": {"first": capable}, **rest}
    )


@contextlib.asynccontextmanager
async def running(place: Place, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """The batch as a process of its own; it is surely gone afterwards."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *SEMROUTE, *place.command(*arguments), stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """How it ended, once it has."""
    async with asyncio.timeout(3 * GENEROUS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    async with asyncio.timeout(3 * GENEROUS):
        while not condition():
            await asyncio.sleep(0.01)


def queries(count: int, start: int = 1) -> list[str]:
    return [f"query {number}" for number in range(start, start + count)]


def quoted(texts: list[str]) -> list[str]:
    """Each as a line of the input."""
    return [json.dumps(text) for text in texts]


def answers(texts: list[str]) -> list[str]:
    return [f"re {text}" for text in texts]
