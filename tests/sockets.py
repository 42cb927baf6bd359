"""Servers on loopback of which nothing is left: no connection, and nobody who serves one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterable

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Do ``serve`` with every connection; gives the address. What it leaves open is closed after
    it, and reset where the other side is gone or the server ends."""
    serving: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await _accepted(server.sockets)
        server.close()
        await _settled()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve ``app``, whose handlers are cancelled where the asker leaves; gives the address."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    try:
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        assert site._server
        await _accepted(site._server.sockets)  # type: ignore[attr-defined]
        await site.stop()
        await _settled()
        assert runner.server
        open_ = [connection.transport for connection in runner.server.connections]
        await runner.cleanup()
        for transport in filter(None, open_):
            transport.abort()  # closing waits for what nobody will ever read
        await _settled()


async def _accepted(listening: Iterable[Any]) -> None:
    """Accept no more, and let what was accepted just now arrive: a server that closes between the
    two leaves the connection open for ever (CPython before 3.12)."""
    for socket in listening:
        asyncio.get_running_loop().remove_reader(socket.fileno())
    await _settled()


async def _settled() -> None:
    """What was accepted, or ended, just now is handed over a few turns later."""
    for _ in range(3):
        await asyncio.sleep(0)
