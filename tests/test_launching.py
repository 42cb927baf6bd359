"""The launch scripts, run for real: a stand-in for vLLM, and SLURM's variables where they are."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from recipe_profiles import loaded, serving, sharing
from semroute_service.recipes import FORMATS, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LIMIT = 60.0
"""Seconds, against hanging only."""
VLLM = f"""#!{sys.executable}
import http.server, json, os, pathlib, signal, sys

options = sys.argv[1:]
here = pathlib.Path(__file__).parent
name = options[1].replace("/", "_")
(here / f"{{name}}.started").write_text(json.dumps([os.getpid(), options]))
if os.environ.get("FAILS") == name:
    sys.exit(3)
asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        body = json.dumps({{"data": [{{"id": options[1]}}]}}).encode()
        self.send_response(200 if asked > 1 else 503)  # it loads for a while
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def end(*_):
    (here / f"{{name}}.told").touch()
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
port = int(options[options.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Machine:
    """A place with a vLLM that starts at once, and a registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.registry = folder / "shared" / "servers"
        self.bin.mkdir()
        (self.bin / "vllm").write_text(VLLM)
        (self.bin / "vllm").chmod(0o755)

    @property
    def registered(self) -> dict[str, str]:
        """The entries as semroute finds them: one that is still being written is none yet."""
        return {path.name: path.read_text() for path in self.registry.glob("*.env")}

    def started(self, name: str) -> tuple[int, list[str]]:
        """The process of a model's server, and its arguments."""
        pid, options = json.loads((self.bin / f"{name}.started").read_text())
        return pid, options

    @contextlib.contextmanager
    def running(
        self, profile: Mapping[str, Any], form: str = "shell", **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """The only script of ``profile``, as bash or SLURM would run it."""
        (item,) = FORMATS[form](plan(loaded(self.folder, profile))).items()
        path = self.folder / item[0]
        path.write_text(item[1])
        process = subprocess.Popen(
            ["bash", path],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "SEMROUTE_REGISTRY": str(self.registry),
                "SEMROUTE_SERVER_HOST": "127.0.0.1",
                "http_proxy": "http://127.0.0.1:1",  # which must not be asked for what is here
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for ``condition``; a script that ends before fails the test with what it said."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        if process.poll() is not None and not condition():
            raise AssertionError(process.communicate())
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SLURM = {"SLURM_JOB_ID": "17", "SLURM_JOB_PARTITION": "gpu", "SLURMD_NODENAME": "node-7"}


@pytest.mark.parametrize(("form", "environment"), [("shell", {}), ("sbatch", SLURM)])
def test_a_server_registers_is_found_and_ends(
    machine: Machine, form: str, environment: dict[str, str]
) -> None:
    """Healthy, it is where the backend's url says; told to end, it is gone and so is its entry."""
    said = ["--chat-template", "it's $(touch made) `touch made` $HOME; touch made"]
    profile = serving({"arguments": said})
    with machine.running(profile, form, **environment) as process:
        until(lambda: "my-coder.env" in machine.registered, process)
        known = {"SEMROUTE_REGISTRY": str(machine.registry)}
        url = loaded(machine.folder, profile, known).backends["my-coder"].url
        with urllib.request.urlopen(f"{url}/models", timeout=LIMIT) as answer:
            assert json.load(answer) == {"data": [{"id": "org/coder"}]}
        pid, options = machine.started("org_coder")
        port = url.rpartition(":")[2].removesuffix("/v1")
        assert options[-6:] == [*said, "--host", "0.0.0.0", "--port", port]
        assert machine.registered == {
            "my-coder.env": f"export CODER_URL=http://127.0.0.1:{port}/v1\n"
        }
        process.send_signal(signal.SIGTERM)  # to the script alone, as SLURM's B:TERM
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (143, "")
    assert out == f"my-coder is healthy on port {port}\n"
    assert (machine.bin / "org_coder.told").exists()
    assert not alive(pid)
    assert machine.registered == {}
    assert not (machine.folder / "made").exists()


def test_a_taken_port_is_not_used(machine: Machine) -> None:
    """Where somebody has the first port, the server gets another, and registers that."""
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        with contextlib.suppress(OSError):  # then somebody else has it, which does as well
            taken.bind(("", 8000))
            taken.listen()
        process = stack.enter_context(machine.running(serving()))
        until(lambda: bool(machine.registered), process)
        (line,) = machine.registered.values()
        assert not line.endswith(":8000/v1\n")


def test_servers_on_one_gpu_start_in_turn(machine: Machine) -> None:
    """The second is started when the first is healthy; both end together."""
    with machine.running(sharing(0.5, 0.4)) as process:
        until(lambda: (machine.bin / "org_b.started").exists(), process)
        assert "on-a.env" in machine.registered
        until(lambda: len(machine.registered) == 2, process)
        pids = [machine.started(name)[0] for name in ("org_a", "org_b")]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert machine.registered == {}
    assert not any(map(alive, pids))


def test_a_server_that_ends_takes_all_with_it(machine: Machine) -> None:
    """Half a job is none: the entry goes, the neighbour ends, and the status is not 0."""
    with machine.running(sharing(0.5, 0.4)) as process:
        until(lambda: len(machine.registered) == 2, process)
        first, second = (machine.started(name)[0] for name in ("org_a", "org_b"))
        os.kill(first, signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "a server ended with status 0" in err
    assert machine.registered == {}
    assert not alive(second)


def test_a_server_that_never_becomes_healthy(machine: Machine) -> None:
    """It is never registered; its neighbour, which was, is taken back."""
    with machine.running(sharing(0.5, 0.4), FAILS="org_b") as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert err == "on-b ended before it was healthy\n"
    assert machine.registered == {}
    assert not alive(machine.started("org_a")[0])


def test_the_entry_of_another_run_stays(machine: Machine) -> None:
    """A job that ends late does not take back what its successor registered."""
    with machine.running(serving()) as process:
        until(lambda: bool(machine.registered), process)
        successor = "export CODER_URL=http://node-8:8000/v1\n"
        (machine.registry / "my-coder.env").write_text(successor)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert machine.registered == {"my-coder.env": successor}


def test_an_entry_that_is_half_made_is_taken_back(machine: Machine) -> None:
    """Told to end while it registers, a job leaves nothing behind."""
    (machine.bin / "mv").write_text("#!/bin/sh\nkill -TERM $PPID\n")
    (machine.bin / "mv").chmod(0o755)
    with machine.running(serving()) as process:
        process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert list(machine.registry.iterdir()) == []


def test_what_is_registered_stands_behind_the_environment(tmp_path: Path) -> None:
    """The environment wins, unless it is empty; what is no entry is passed over, and never run."""
    registry = tmp_path / "registry"
    registry.mkdir()
    (registry / "a.env").write_text(
        "# export CODER_URL=http://comment/v1\ntouch made\nexport CODER_URL=http://job:1/v1\n"
        "export OTHER=$(touch made)\n"
    )
    (registry / "b.env").write_bytes(b"\xff\xfe")
    (registry / "c.env.17").write_text("export CODER_URL=http://half/v1\n")
    known = {"SEMROUTE_REGISTRY": str(registry)}

    def url(**environment: str) -> str:
        return loaded(tmp_path, serving(), environment).backends["my-coder"].url

    assert url(**known) == "http://job:1/v1"
    assert url(**known, CODER_URL="") == "http://job:1/v1"
    assert url(**known, CODER_URL="http://set:2/v1") == "http://set:2/v1"
    assert url() == url(SEMROUTE_REGISTRY=str(tmp_path / "none")) == "http://nowhere:8000/v1"
    assert not (tmp_path / "made").exists()
