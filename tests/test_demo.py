"""``semroute demo``: what a newcomer runs first, run whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from upstream import nobody

ROOT = Path(__file__).parents[1]
GENEROUS = 500.0
"""Seconds, against hanging only."""
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Ended:
    """How the demo ended, what it printed, and the processes that it left."""

    status: int
    out: str
    err: str
    left: list[int]


def group_of(leader: int) -> list[int]:
    """The living processes of the group that ``leader`` began."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(after_name[2]) == leader and after_name[0] != "Z":
                members.append(int(folder.name))
    return members


def started(home: Path) -> subprocess.Popen[str]:
    """The demo in a process group of its own, with the parts that every machine has."""
    return subprocess.Popen(
        [sys.executable, "-m", "semroute_service.cli", "demo"],
        cwd=ROOT,
        env={
            **os.environ,
            "SEMROUTE_ENCODER": "bundled",
            "SEMROUTE_HOME": str(home),
            "SEMROUTE_VLLM_URL": nobody(),
            "OLLAMA_HOST": nobody(),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def demo(kept: Path) -> Ended:
    """One run for the whole module, because it embeds every utterance."""
    with started(kept) as process:
        try:
            out, err = process.communicate(timeout=GENEROUS)
        finally:
            left = group_of(process.pid)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    return Ended(process.returncode, out, err, left)


def rows(demo: Ended) -> dict[str, list[str]]:
    """The table's rows by task, each as its first line's cells before the query."""
    table = demo.out.partition("─\n")[2].partition("\nand one answer")[0]
    lines = [line.split() for line in table.splitlines() if not line.startswith(" ")]
    return {line[0]: line[1:4] for line in lines if line}


def test_it_ends_well(demo: Ended) -> None:
    """It exits with 0, without a word on standard error."""
    assert (demo.status, demo.err) == (0, "")


def test_it_leaves_nothing_running(demo: Ended) -> None:
    """The server that it started has ended with it."""
    assert demo.left == []


def test_it_shows_decisions(demo: Ended) -> None:
    """Hard code is high, biology stays in the building, and small talk is no task."""
    table = rows(demo)
    assert table["code_generation"][0] == "high"
    assert table["biomedical"][2] == "echo"
    assert table["(none)"][0] == "-"
    text = " ".join(demo.out.split())
    assert "deepseek-v3 (the row biomedical stays in the building" in text
    assert "No task's utterances are near enough, so the default row applies" in text


def test_it_streams_an_answer_and_says_whose(demo: Ended) -> None:
    """The answer is there, with the backend and the encoder, and what would be better parts."""
    assert "profile development, encoder bundled" in demo.out
    assert "\nYou said: Write a haiku-sized shell one-liner" in demo.out
    assert "\nanswered by echo on echo\ndecided with the bundled encoder\n" in demo.out
    assert "Better parts" in demo.out


def test_interrupted_it_leaves_nothing_running(tmp_path: Path) -> None:
    """Ctrl-C while the server warms up ends both."""
    with started(tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("starting a server")
        deadline = time.monotonic() + GENEROUS
        while not (tmp_path / "ledger.sqlite3").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, err = process.communicate(timeout=GENEROUS)
        finally:
            left = group_of(process.pid)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert (process.returncode, left) == (130, [])
    assert "Traceback" not in err
