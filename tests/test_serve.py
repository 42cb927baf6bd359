"""``semroute serve`` as a process: what it says, how it ends, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from processes import run
from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import ECHO_PROFILE, UTTERANCES, write_files
from upstream import Status, answer, ask, failure, profile, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

GENEROUS = 120.0
"""Seconds, against hanging only."""
HERE = ("--listen", "127.0.0.1:0", "--encoder", "hashing", "--home", "home")
PROGRAM = (sys.executable, "-m", "semroute_service.cli", "serve")
QUERY = "write a python script"
SECRET = "xyzzyplugh"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with profiles and utterances, in which ``serve`` finds them by itself."""
    write_files(tmp_path / "profiles", {"development": ECHO_PROFILE, "other": ECHO_PROFILE})
    write_files(tmp_path / "utterances", UTTERANCES)
    return tmp_path


@dataclass(frozen=True)
class Served:
    """A server process, and the file that its standard error goes to."""

    process: asyncio.subprocess.Process
    errors: Path

    @property
    def log(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    async def address(self) -> str:
        """Where it serves, once it says so."""
        assert self.process.stdout
        async with asyncio.timeout(GENEROUS):
            line = (await self.process.stdout.readline()).decode()
        assert line.startswith("serving on "), self.log
        return line.removeprefix("serving on ").strip()

    async def logs(self, text: str) -> None:
        """Return once ``text`` stands in the log."""
        async with asyncio.timeout(GENEROUS):
            while text not in self.log:
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.02)

    async def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send ``sign``; returns the exit status."""
        self.process.send_signal(sign)
        async with asyncio.timeout(GENEROUS):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """A server process that runs in ``folder`` and is surely gone afterwards."""
    errors = folder / "stderr"
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *arguments,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield Served(process, errors)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_it_is_told_to_end(folder: Path, sign: signal.Signals) -> None:
    """It prints where it serves, answers there, and a signal ends it with status 0."""
    async with serving(folder, *HERE) as served:
        address = await served.address()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        async with RouterClient(address) as client:
            decision = await client.decide(QUERY)
            async with client.complete(QUERY) as answer:
                text = await answer.read()
        assert (decision.profile, decision.encoder) == ("development", "hashing")
        assert text == f"You said: {QUERY}"
        assert await served.end(sign) == 0
    assert (folder / "home" / "ledger.sqlite3").is_file()
    assert "Traceback" not in served.log


async def test_a_signal_during_the_warm_up_ends_it(folder: Path) -> None:
    """It gives up what it builds, so that it ends with status 0 long before it is warm."""
    write_files(folder / "utterances", {"code": [f"write program {i}" for i in range(20_000)]})
    async with serving(folder, *HERE, "--encoder", "bundled") as served:
        await served.logs("encoder bundled loaded")
        assert await served.end() == 0
    assert "classifier ready" not in served.log
    assert not (folder / "home" / "artifacts").exists()
    assert "Traceback" not in served.log


async def test_every_option_has_a_twin(folder: Path) -> None:
    """What the options say can be said by SEMROUTE_* as well."""
    for kind in ("profiles", "utterances"):
        (folder / kind).rename(folder / f"own-{kind}")
    env = {
        "SEMROUTE_PROFILES": "own-profiles",
        "SEMROUTE_UTTERANCES": "own-utterances",
        "SEMROUTE_PROFILE": "other",
        "SEMROUTE_LISTEN": "127.0.0.1:0",
        "SEMROUTE_ENCODER": "hashing",
        "SEMROUTE_HOME": "own-home",
        "SEMROUTE_LOG_LEVEL": "error",
    }
    async with serving(folder, env=env) as served:
        async with RouterClient(await served.address()) as client:
            decision = await client.decide(QUERY)
        assert await served.end() == 0
    assert (decision.profile, decision.encoder) == ("other", "hashing")
    assert (folder / "own-home" / "ledger.sqlite3").is_file()
    assert served.log == ""


async def test_an_empty_twin_is_unset(folder: Path) -> None:
    """A variable that is set to nothing, as compose files do, leaves the default."""
    env = {"SEMROUTE_PROFILE": "", "SEMROUTE_LOG_LEVEL": "", "SEMROUTE_PROFILES": ""}
    async with (
        serving(folder, *HERE, env=env) as served,
        RouterClient(await served.address()) as client,
    ):
        assert (await client.decide(QUERY)).profile == "development"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--profile", "nope"], 1, 'no profile "nope"; loaded: development, other'),
        (["--profiles", "nowhere"], 1, "nowhere: is not a folder"),
        (["--utterances", "nowhere"], 1, "nowhere: is not a folder"),
        (["--encoder", "./nowhere"], 1, 'the encoder "./nowhere" is not a folder'),
        (["--home", "profiles/other.yaml/home"], 1, "Not a directory"),
        (["--listen", "nonsense"], 2, "--listen wants HOST:PORT, such as 127.0.0.1:50051"),
        (["--listen", "127.0.0.1:99999"], 2, "--listen wants HOST:PORT"),
        (["--listen", "127.0.0.1:"], 2, "--listen wants HOST:PORT"),
        (["--listen", "203.0.113.1:0"], 1, "cannot listen on 203.0.113.1:0"),
        (["--log-level", "chatty"], 2, "invalid choice: 'chatty'"),
        (["--nope"], 2, "unrecognized arguments: --nope"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
async def test_wrong_options_are_told(
    folder: Path, arguments: list[str], status: int, message: str
) -> None:
    """A wrong option ends the start with a status and a sentence, and nothing is served."""
    ended = await run(*PROGRAM, *HERE, *arguments, cwd=folder)
    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert "Traceback" not in ended.err


async def test_a_wrong_log_level_in_the_environment_is_told(folder: Path) -> None:
    """A twin is looked at as strictly as its option."""
    env = {**os.environ, "SEMROUTE_LOG_LEVEL": "chatty"}
    ended = await run(*PROGRAM, *HERE, cwd=folder, env=env)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "semroute: the log level must be one of debug, info, warning, error\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {echo: {provider: echo}\nroutes: [", "development.yaml:2: is not valid YAML"),
        (
            "models: {echo: {provider: echo}}\nroutes:\n  default: {modle: echo}\n",
            'development.yaml:3: routes.default.modle: unknown key; did you mean "model"?',
        ),
        (
            "models: {echo: {provider: echo}}\nroutes: {default: {model: ecko}}\n",
            "development.yaml:2: routes.default.model",
        ),
    ],
    ids=["broken", "unknown key", "unknown model"],
)
async def test_a_wrong_file_is_told_with_its_place(folder: Path, text: str, message: str) -> None:
    """A mistake in a profile ends the start with file, line and key."""
    (folder / "profiles" / "development.yaml").write_text(text, encoding="utf-8")
    ended = await run(*PROGRAM, *HERE, cwd=folder)
    assert (ended.status, ended.out) == (1, "")
    assert f"profiles/{message}" in ended.err
    assert "Traceback" not in ended.err


async def test_a_taken_port_is_told(folder: Path) -> None:
    """Where another program listens already it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = await run(*PROGRAM, *HERE, "--listen", address, cwd=folder)
    assert (ended.status, ended.out) == (1, "")
    assert f"semroute: cannot listen on {address}; is the port taken?" in ended.err
    assert "Traceback" not in ended.err


async def test_an_open_address_is_warned_of(folder: Path) -> None:
    """Beyond loopback it says that whoever reaches it may use it; on loopback it does not."""
    async with serving(folder, *HERE, "--listen", "0.0.0.0:0") as served:
        await served.address()
        assert "0.0.0.0:0 is open to the network: no TLS, no authentication" in served.log
    async with serving(folder, *HERE, "--listen", "localhost:0") as served:
        await served.address()
        assert "open to the network" not in served.log


async def test_nothing_that_is_asked_or_answered_is_logged(folder: Path) -> None:
    """At the finest level, and with failures on the way, no prompt and no answer is in the log."""
    query = f"write a python script about {SECRET}"
    refused = Status(500, failure(f"cannot answer {query}"))
    once_more = {"max_retries": 1}
    async with upstream(refused, answer(f"here is {SECRET}")) as first:
        write_files(folder / "profiles", {"development": profile(first, behavior=once_more)})
        async with serving(folder, *HERE, "--log-level", "debug") as served:
            async with RouterClient(await served.address()) as client:
                await client.decide(query, session_id="s")
                await client.batch_decide([query, ""])
                await client.embed([query])
                assert SECRET in (await ask(client, query)).text
                for wrong in ([pb.Message(text=query)], pb.Query(session_id=SECRET)):
                    with pytest.raises(RouterError):
                        await client.decide(wrong)
            assert await served.end() == 0
    assert len(first.requests) == 2
    assert " DEBUG " in served.log
    assert "500" in served.log
    assert SECRET not in served.log
