"""A foreign server as a process: started, waited for, looked at from outside, ended."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from upstream import GENEROUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
START_SECONDS = 240.0
END_SECONDS = 20.0


@contextlib.contextmanager
def served(
    command: Sequence[str | Path],
    port: int,
    log: Path,
    health: str = "/health",
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run ``command``, which listens on ``port`` of loopback; gives its base URL once it is well.

    What it says goes to ``log``. It has a process group of its own, so that those that it starts
    end with it.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=log.parent,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_well(process, port, health, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end(process)


async def until_hung_up(port: int) -> None:
    """Until the server at ``port`` has no connection left, neither open nor half closed."""
    async with asyncio.timeout(GENEROUS):
        while _connections(port):
            await asyncio.sleep(0.05)


def _connections(port: int) -> int:
    open_ones = {psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT}
    found = psutil.net_connections("tcp")
    return sum(c.status in open_ones and c.laddr.port == port for c in found if c.laddr)


def _wait_until_well(process: subprocess.Popen[bytes], port: int, health: str, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while not _is_well(port, health):
        if process.poll() is not None or time.monotonic() > ends:
            pytest.fail(f"the server does not start:\n{log.read_text()[-3000:]}", pytrace=False)
        time.sleep(0.2)


def _is_well(port: int, health: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", health)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the group, then make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
