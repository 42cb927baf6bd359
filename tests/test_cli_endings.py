"""How ``semroute``'s questions end where no answer comes, or not all of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from aiohttp import web

from desk import SEMROUTE
from processes import run
from semroute_service.cli import main
from semroute_service.faults import fault_server
from semroute_service.testing import running_server
from sockets import listening, serving
from upstream import GENEROUS, nobody, profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@contextlib.asynccontextmanager
async def stalling() -> AsyncIterator[str]:
    """Where a router listens whose model says three words and then nothing."""
    async with fault_server("stall:3") as upstream:
        served = profile(upstream.url, models={"first": {"id": "stall:3"}})
        async with running_server(served) as server:
            yield server.address


async def test_ctrl_c_in_the_middle_of_an_answer() -> None:
    """What was said ends its line, and that it is not whole is said."""
    async with stalling() as address:
        process = await asyncio.create_subprocess_exec(
            *SEMROUTE,
            *("complete", "hello", "--server", address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout
            async with asyncio.timeout(3 * GENEROUS):
                said = b""
                while len(said.split()) < 3:
                    said += await process.stdout.read(64)
                process.send_signal(signal.SIGINT)
                rest, err = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 130
        assert (said + rest).endswith(b"\n")
        assert err == b"semroute: left in the middle: the answer is not whole\n"


@contextlib.asynccontextmanager
async def between(address: str, gone: asyncio.Event) -> AsyncIterator[str]:
    """Hands on what comes and goes, until ``gone``: then the line is dead, as a server's is that
    was killed."""
    host, _, port = address.rpartition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(port))
        copies = [
            asyncio.create_task(copy(reader, ours)),
            asyncio.create_task(copy(theirs, writer)),
        ]
        try:
            await gone.wait()
        finally:
            for task in copies:
                task.cancel()
            for one in (ours, writer):
                one.transport.abort()

    async with listening(serve) as middle:
        yield middle


async def test_a_server_that_dies_in_the_middle_of_an_answer() -> None:
    """It is told from one that was never there, and that the answer is not whole is said."""
    gone = asyncio.Event()
    async with stalling() as address, between(address, gone) as middle:
        process = await asyncio.create_subprocess_exec(
            *SEMROUTE,
            *("complete", "hello", "--server", middle),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout
            async with asyncio.timeout(3 * GENEROUS):
                said = b""
                while len(said.split()) < 3:
                    said += await process.stdout.read(64)
                gone.set()
                rest, err = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert process.returncode == 1
    assert (said + rest).endswith(b"\n")
    told = f"semroute: the server at {middle} went away in the middle: the answer is not whole\n"
    assert err.decode() == told


async def test_a_deadline_says_what_waits_longer() -> None:
    async with stalling() as address:
        ended = await run(*SEMROUTE, "complete", "hello", "--server", address, "--timeout", "1.5")
    assert ended.status == 1
    assert ended.err.startswith("semroute: DEADLINE_EXCEEDED")
    assert ended.err.endswith("--timeout S waits longer\n")


async def test_a_server_that_is_no_router() -> None:
    """Somebody else's server, and an address that is none, are told from nobody."""
    async with serving(web.Application()) as address:
        ended = await run(*SEMROUTE, "decide", "hello", "--server", address)
    assert ended.status == 1
    assert ended.err.startswith(f"semroute: no router answers at {address}; --server wants HOST:P")
    ended = await run(*SEMROUTE, "decide", "hello", "--server", "no.such.host.invalid:1")
    assert "no router answers at no.such.host.invalid:1; --server wants" in ended.err
    nowhere = nobody().split("/")[2]
    ended = await run(*SEMROUTE, "decide", "hello", "--server", nowhere)
    assert ended.err == f"semroute: no server answers at {nowhere}; start one: semroute serve\n"


def test_retries_belong_to_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", "hello", "--retry-errors"]) == 2
    assert capsys.readouterr().err == "semroute: --retry-errors needs --batch IN\n"
