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
from sockets import serving
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
