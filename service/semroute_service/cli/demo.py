"""``demo``: the main job in half a minute, with a real server and the real client."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from semroute import RouterError, SyncRouterClient
from semroute_service.cli import output
from semroute_service.cli.options import twin
from semroute_service.settings import DEFAULT_PROFILE

if TYPE_CHECKING:
    import argparse

QUERIES = (
    "Build a crash-safe job scheduler in Rust with leases, retries and exactly-once effects",
    "Which of the variants in this patient's exome could explain her cardiomyopathy?",
    "Will it rain in Zurich tomorrow?",
    "How many mice per group do I need for 80 % power if the standard deviation is 1.2?",
    "Write a README for our command-line tool",
    "Does this message contain patient names or phone numbers?",
    "My unit test fails with KeyError: 'sample_id', what is wrong?",
)
_QUESTION = "Write a haiku-sized shell one-liner that counts the reads in a FASTQ file"
_START_SECONDS = 900.0  # a large encoder on a few cores takes minutes, once
_STOP_SECONDS = 15.0

_BETTER = """\
Better parts
  backend   a vLLM server:  SEMROUTE_VLLM_URL=http://HOST:8000/v1 make demo
            Ollama:         start it, or set OLLAMA_HOST; it is found by itself
            a cloud key:    DEEPSEEK_API_KEY=... semroute serve --profile cloud_only
  encoder   BGE-M3 is used as soon as its weights are on the machine:
            huggingface-cli download BAAI/bge-m3
"""


def demo(options: argparse.Namespace) -> int:
    """Decisions in a table, then one answer; nothing is left running."""
    command = [sys.executable, "-m", "semroute_service.cli", "serve", "--listen", "127.0.0.1:0"]
    print("starting a server (the first start prepares the encoder and the utterances)")
    with subprocess.Popen(  # noqa: S603 - our own module, with arguments of our own
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "SEMROUTE_LOG_LEVEL": "info",
            "SEMROUTE_PROFILE": twin("PROFILE", DEFAULT_PROFILE),
        },
    ) as server:
        try:
            address = _address(server)
            if address is None:
                return output.fail("the server did not start")
            with SyncRouterClient(address) as client:
                _show(client, address)
        except RouterError as error:
            return output.fail(output.describe(error))
        finally:
            _stop(server)
    return 0


def _show(client: SyncRouterClient, address: str) -> None:
    decisions = [client.decide(query) for query in QUERIES]
    first = decisions[0]
    print(f"serving on {address}: profile {first.profile}, encoder {first.encoder}\n")
    rows = []
    for query, decision in zip(QUERIES, decisions, strict=True):
        verdict = decision.classification
        tier = output.tier_word(verdict.tier)
        confidence = f"{verdict.confidence:.2f}"
        rows.append([verdict.task or "(none)", tier, confidence, decision.model, f'"{query}"'])
        rows.append(["", "", "", "", decision.reason])
    output.print_table(["task", "tier", "conf.", "model", "query, and why"], rows)
    print(f'\nand one answer, streamed: "{_QUESTION}"\n')
    with client.complete(_QUESTION) as answer:
        for delta in answer:
            print(delta.text, end="", flush=True)
    assert answer.finish
    print(f"\n\nanswered by {answer.finish.model} on {answer.finish.backend}")
    print(f"decided with the {first.encoder} encoder\n")
    print(_BETTER)


def _address(server: subprocess.Popen[str]) -> str | None:
    """Where the server listens, once it says so; None where it ends or takes too long."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_drain_errors, args=(server,), daemon=True).start()

    def read() -> None:
        assert server.stdout
        for line in server.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        while line := lines.get(timeout=_START_SECONDS):
            if line.startswith("serving on "):
                return line.removeprefix("serving on ").strip()
    except queue.Empty:
        pass
    return None


def _drain_errors(server: subprocess.Popen[str]) -> None:
    """Show warnings and the progress of embedding; keep the rest of the log to oneself."""
    assert server.stderr
    for line in server.stderr:
        if " INFO " not in line:
            print(f"  {line}", end="", file=sys.stderr)
        elif "embedding utterances" in line:
            print(f"  {line.partition('INFO')[2].strip()}", flush=True)


def _stop(server: subprocess.Popen[str]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
