"""What all tests share: no network beyond loopback, no keys, and a server when one is wanted."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from xdist.scheduler import LoadFileScheduling

from semroute import RouterClient
from semroute_service.testing import RunningServer, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "110"  # whatever the terminal is
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C, and all its children are, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in [n for n in os.environ if n.endswith("_API_KEY") or n.startswith("SEMROUTE_")]:
    del os.environ[name]

_connect = socket.socket.connect


def _guarded(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
        raise OSError(f"a test tried to reach {address}")
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> None:
    socket.socket.connect = _guarded  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for what takes long to build, such as the shipped utterances' artifacts: what one test
    has built the next finds."""
    return tmp_path_factory.mktemp("kept")


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """A file stays with one of several workers, for the sake of what its tests share; so do all
    files that share ``kept``."""

    _sharing = frozenset(
        path.name
        for path in Path(__file__).parent.glob("test_*.py")
        if "kept: Path" in path.read_text()
    )

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "kept" if file.rpartition("/")[2] in self._sharing else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest_asyncio.fixture
async def echo_server() -> AsyncIterator[RunningServer]:
    """A real server whose only model is the built-in echo."""
    async with running_server() as server:
        yield server


@pytest_asyncio.fixture
async def client(echo_server: RunningServer) -> AsyncIterator[RouterClient]:
    async with RouterClient(echo_server.address) as client:
        yield client


@pytest.fixture
def full() -> Iterator[str]:
    """A base URL at which connections are not completed, because too many wait already."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            pytest.fail("this system completes every connection")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
