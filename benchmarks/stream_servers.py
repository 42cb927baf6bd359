"""The processes of stream.py: upstream, semroute, a bare gRPC server, LiteLLM's proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks"
START_SECONDS = 300.0
MODELS = {"first": "paced-8-2", "one": "flood-1"}
"""The upstream's, for the scenarios that always ask the same one."""


@dataclass(frozen=True, slots=True)
class Served:
    """A process that is ready, and its port on loopback."""

    pid: int
    port: int
    key: str = ""


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[Served]:
    async with _process([sys.executable, str(HERE / "stream_upstream.py")]) as served:
        yield served


@contextlib.asynccontextmanager
async def bare() -> AsyncIterator[Served]:
    async with _process([sys.executable, str(HERE / "stream_bare.py")]) as served:
        yield served


@contextlib.asynccontextmanager
async def semroute(port: int, models: list[str]) -> AsyncIterator[Served]:
    """As a user serves it, with the upstream at ``port`` as its only backend."""
    profile = {
        "classifier": {"encoder": "bundled"},
        "backends": {
            "upstream": {"provider": "openai_compatible", "url": f"http://127.0.0.1:{port}/v1"}
        },
        "models": {name: {"backend": "upstream", "id": name} for name in models},
        "routes": {"default": {"model": models[0]}},
    }
    with tempfile.TemporaryDirectory() as folder:
        profiles = Path(folder) / "profiles"
        profiles.mkdir()
        (profiles / "bench.yaml").write_text(json.dumps(profile), encoding="utf-8")
        options = {
            "--listen": "127.0.0.1:0",
            "--profiles": str(profiles),
            "--profile": "bench",
            "--utterances": str(ROOT / "utterances"),
            "--home": str(_home(Path(folder) / "home")),
            "--log-level": "warning",
        }
        words = [word for pair in options.items() for word in pair]
        command = [sys.executable, "-m", "semroute_service.cli", "serve", *words]
        async with _process(command) as served:
            yield served


def _home(folder: Path) -> Path:
    """A home that shares what takes long to build with the user's, and keeps the rest apart."""
    folder.mkdir()
    for name in ("artifacts", "encoders", "static"):
        shared = default_home() / name
        shared.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(shared)
    return folder


@contextlib.asynccontextmanager
async def litellm(port: int, models: list[str]) -> AsyncIterator[Served]:
    """Its proxy with one worker and no log, with the upstream at ``port`` behind it."""
    programs = litellm_programs()
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": f"http://127.0.0.1:{port}/v1",
                    "api_key": "none",
                },
            }
            for name in models
        ],
        "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 600},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        own = _free_port()
        command = [str(programs / "litellm"), "--config", str(file)]
        command += ["--host", "127.0.0.1", "--port", str(own), "--num_workers", "1"]
        key = f"sk-{secrets.token_hex(16)}"  # without one it does not start
        quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        async with _process(command, own, quiet | {"LITELLM_MASTER_KEY": key}) as served:
            yield replace(served, key=key)


def litellm_programs() -> Path:
    """The folder of its programs, installed where they are not there; says so on stderr.

    Raises ``CalledProcessError`` where they cannot be installed; the reason stands on stderr.
    """
    installer = ROOT / "tests/servers/environments.py"
    made = subprocess.run(
        [sys.executable, str(installer), "litellm"], stdout=subprocess.PIPE, check=True
    )
    return Path(made.stdout.decode().strip())


@contextlib.asynccontextmanager
async def _process(
    command: list[str], port: int = 0, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """Run until left. It says on stdout where it serves, or else listens on ``port``."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if port else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL if port else None,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            if port:
                await _until_answering(process, port)
            else:
                assert process.stdout
                said = (await process.stdout.readline()).decode()
                if not said.startswith("serving on"):
                    raise SystemExit(f"{command[-1]} does not start")
                port = int(said.rsplit(":", 1)[1])
        yield Served(process.pid, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_answering(process: Any, port: int) -> None:
    while process.returncode is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/liveliness HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            answer = await reader.readuntil(b"\r\n")
            writer.close()
            if b" 200 " in answer:
                return
        await asyncio.sleep(0.2)
    raise SystemExit("LiteLLM's proxy does not start; run it by hand to see why")


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
