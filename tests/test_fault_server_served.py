"""The fault server as it is served: what it lists, what it notes, and its command."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from fault_asking import GENEROUS, KEY, QUESTION, ask, get
from processes import run
from semroute_service.cli import main
from semroute_service.faults import (
    FAULTS,
    FaultServer,
    fault_server,
    fingerprint,
    whole,
)

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = (sys.executable, "-m", "semroute_service.cli", "fault-server")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": "ok", "messages": []}', b"\xff"])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    """Rubbish gets a 400 and does not count as a request."""
    async with fault_server() as server:
        async with (
            aiohttp.ClientSession() as session,
            session.post(server.url + "/chat/completions", data=body) as answer,
        ):
            assert answer.status == 400
        assert not server.received


async def test_models_health_and_metrics() -> None:
    """It lists every fault as a model, and names it was given or asked for; it is well while it
    is said to be, and tells its queue as vLLM does."""
    async with fault_server("stall:9") as server:
        await ask(server, "cut:2")
        models = json.loads((await get(server.url + "/models"))[1])["data"]
        assert [model["id"] for model in models] == [*FAULTS, "stall:9", "cut:2"]
        assert all(model["description"] for model in models)
        server.waiting = 7
        _, metrics = await get(server.address + "/metrics")
        assert 'vllm:num_requests_waiting{model_name="fault"} 7.0' in metrics
        assert 'vllm:num_requests_running{model_name="fault"} 0.0' in metrics
        assert 'semroute_fault_requests_total{model_name="cut:2"} 1' in metrics
        assert (await get(server.address + "/health"))[0] == 200
        server.healthy = False
        assert (await get(server.address + "/health"))[0] == 503


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_the_log_knows_keys_by_their_fingerprint(header: str) -> None:
    """Who asked with which key can be told, and neither key nor question is anywhere."""
    file = io.StringIO()
    async with fault_server(log=file) as server:
        value = f"Bearer {KEY}" if header == "authorization" else KEY
        body = {"model": "ok", "messages": [{"role": "user", "content": QUESTION}]}
        async with (
            aiohttp.ClientSession(headers={header: value}) as session,
            session.post(server.url + "/chat/completions", json=body) as answer,
        ):
            await answer.read()
        status, log = await get(server.address + "/log")
    (entry,) = json.loads(log)["requests"]
    assert status == 200
    assert entry == json.loads(file.getvalue())
    assert entry["key"] == fingerprint(KEY)
    assert (entry["number"], entry["model"], entry["stream"], entry["left"]) == (
        1,
        "ok",
        False,
        False,
    )
    assert abs((datetime.now(UTC) - datetime.fromisoformat(entry["date"])).total_seconds()) < 60
    assert KEY not in log
    assert QUESTION not in log


@pytest.mark.parametrize("model", ["silence", "stall:2", "slow:5", "slow-headers", "endless"])
async def test_the_log_says_who_left(model: str) -> None:
    """Whoever goes away before the end is seen to, at once, whatever the server was doing."""
    async with fault_server() as server:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ask(server, model), 0.2)
        async with asyncio.timeout(GENEROUS):
            while not server.received:
                await asyncio.sleep(0.01)
            await server.received[0].over.wait()
        assert (await get(server.address + "/log"))[1].count('"left": true') == 1
    assert server.received[0].left


async def test_the_end_of_the_server_is_nobodys_leaving() -> None:
    """Requests that the server's own end breaks off are not counted against those who asked."""
    async with fault_server() as server:
        asking = asyncio.create_task(ask(server, "silence"))
        async with asyncio.timeout(GENEROUS):
            while not server.received:
                await asyncio.sleep(0.01)
    await asking
    assert not server.received[0].left


async def test_a_slow_reader_holds_it_up() -> None:
    """Endless as it is, it sends no more than is read, so nobody's memory fills."""
    async with fault_server() as server:
        asked = {"model": "endless", "stream": True, "messages": [{"content": "hi"}]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(server.url + "/chat/completions", json=asked),
        ):
            sent = -1
            async with asyncio.timeout(GENEROUS):
                while sent != (sent := server.received[0].pieces) or not sent:
                    await asyncio.sleep(0.3)
            assert sent < 100_000


@contextlib.asynccontextmanager
async def started(*arguments: str, cwd: Path) -> Any:
    """The command as a process, and the first line it prints."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, cwd=cwd, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        async with asyncio.timeout(GENEROUS):
            yield (await process.stdout.readline()).decode(), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It says where it listens, writes its log, and ends well on SIGTERM."""
    async with started("--log", "got.jsonl", "--seed", "3", cwd=tmp_path) as (line, process):
        assert line.startswith("fault server on http://127.0.0.1:")
        server = FaultServer()
        server.address = line.removeprefix("fault server on ").strip()
        seen = await ask(server, "ok")
        assert seen.text == whole(QUESTION)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GENEROUS):
            assert await process.wait() == 0
    (entry,) = map(json.loads, (tmp_path / "got.jsonl").read_text().splitlines())
    assert (entry["model"], entry["key"]) == ("ok", fingerprint(KEY))


async def test_the_command_tells_machines_in_json(tmp_path: Path) -> None:
    """With --json the line is an object with the address and the url for a profile."""
    async with started("--json", "--waiting", "4", cwd=tmp_path) as (line, _):
        told = json.loads(line)
        assert told["url"] == told["address"] + "/v1"
        assert "} 4.0" in (await get(told["address"] + "/metrics"))[1]


def test_list_names_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """--list has a sentence for each, for people and for machines."""
    assert main(["fault-server", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f.usage + " ") for line in lines) for f in FAULTS.values())
    assert main(["fault-server", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["model"] for entry in listed] == list(FAULTS)
    assert all(entry["is"] for entry in listed)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--listen", "0.0.0.0:0"], "--open-to-network"),
        (["--listen", "example.org:0"], "--open-to-network"),
        (["--listen", ":0"], "HOST:PORT"),
        (["--listen", "127.0.0.1"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["gpt-4o"], 'no fault is named "gpt-4o"; --list names them'),
    ],
)
def test_how_it_will_not_start(
    capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    """Nothing that others could reach, unless told; only what is an address, and no such model."""
    assert main(["fault-server", *arguments]) == 2
    assert hint in capsys.readouterr().err


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """A taken port ends the command with the reason, not with a traceback."""
    async with fault_server() as server:
        host_port = server.address.removeprefix("http://")
        ended = await run(*PROGRAM, "--listen", host_port, cwd=tmp_path)
    assert ended.status == 1
    assert ended.err == f"semroute: cannot listen on {host_port}; is the port taken?\n"


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows a request, a profile and the bounds."""
    with pytest.raises(SystemExit):
        main(["fault-server", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("curl -N", "fallback_chain:", "10 minutes", "--list"))


async def test_many_at_once_do_not_mix() -> None:
    """A hundred streams side by side each get their own whole answer."""
    async with fault_server() as server:
        started_at = time.monotonic()
        seen = await asyncio.gather(
            *(
                ask(server, "ok:50", messages=[{"role": "user", "content": f"question {n}"}])
                for n in range(100)
            )
        )
        assert time.monotonic() - started_at < GENEROUS
    assert [one.text for one in seen] == [whole(f"question {n}", 50) for n in range(100)]
