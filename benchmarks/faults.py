"""What becomes of callers when their first upstream fails at random?

A fault server whose model fails three requests in ten in many ways (``semroute fault-server
--list``), a healthy one behind it, and a router with 32 callers that never pause, all in one
process. Every finished text is compared with the whole right answer. Three storms in one run: one
primary, whose circuit breaker soon takes it out of the way; the same with restarts allowed; and
many primaries, each with a breaker of its own, so that far more faults are met. Writes
benchmarks/results/faults.json.

    python benchmarks/faults.py [--requests 2000] [--share 0.3] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute import RouterClient, RouterError
from semroute_service.faults import RANDOM, FaultServer, fault_server, whole
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute import Completion

ROOT = Path(__file__).parents[1]
CALLERS = 32
PRIMARIES = 40
CLOCK_SECONDS = 2.0
"""A healthy upstream is never silent for so long, even on a machine that is busy."""
DEADLINE_SECONDS = 60.0
STORMS = {
    "one_primary": (1, False),
    "with_restarts": (1, True),
    "many_primaries": (PRIMARIES, False),
}
ASKED_PERCENT = 99.9
"""Of the requests, at least, get their first token."""
ROWS = {
    "requests": "requests",
    "before_first_token_percent": "succeeded before the first token, %",
    "finished": "finished",
    "interrupted": "broken off, and said so",
    "failed_before_first_token": "failed before the first token",
    "finished_but_not_whole": "finished and not whole",
    "restarts": "restarts",
    "primary_calls": "calls to the primary",
    "faults_met": "of these spoiled",
    "fallback_calls": "calls to the fallback",
    "first_token_p50_ms": "first token, p50 ms",
    "first_token_p99_ms": "first token, p99 ms",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Seen:
    """What one caller saw. ``first`` is in seconds, None where no token came; ``error`` is empty
    where the answer was finished."""

    is_finished: bool
    is_right: bool
    first: float | None
    restarts: int
    error: str


def profiles(primary: FaultServer, spare: FaultServer, names: Sequence[str]) -> dict[str, Any]:
    """One for each name of the primary's model."""
    return {
        f"p{number}": {
            "backends": {
                "shaky": {"provider": "vllm", "url": primary.url},
                "sound": {"provider": "vllm", "url": spare.url},
            },
            "models": {
                "primary": {"backend": "shaky", "id": name},
                "fallback": {"backend": "sound", "id": "ok"},
            },
            "routes": {"default": {"model": "primary", "fallback_chain": ["fallback"]}},
            "behavior": {"max_retries": 1, "timeout_seconds": CLOCK_SECONDS},
        }
        for number, name in enumerate(names)
    }


async def listen(answer: Completion, question: str) -> Seen:
    start, first, failed = time.perf_counter(), None, ""
    try:
        async for delta in answer:
            if delta.text and first is None:
                first = time.perf_counter() - start
    except RouterError as error:
        failed = str(error)
    right = answer.text == whole(question)
    return Seen(answer.finish is not None, right, first, answer.restarts, failed)


async def storm(primaries: int, allow_restart: bool, options: argparse.Namespace) -> dict[str, Any]:
    share = f"{options.share:.6f}".rstrip("0")
    names = [f"random:{share}{'0' * number}" for number in range(primaries)]
    seen: list[Seen] = []
    async with (
        fault_server(*names, seed=options.seed) as primary,
        fault_server() as spare,
        running_server(profiles=profiles(primary, spare, names), active="p0") as server,
        RouterClient(server.address) as client,
    ):
        numbers = iter(range(options.requests))

        async def caller() -> None:
            for number in numbers:
                question = f"what is the answer to number {number}?"
                async with client.complete(
                    question,
                    profile=f"p{number % primaries}",
                    allow_restart=allow_restart,
                    timeout=DEADLINE_SECONDS,
                ) as answer:
                    seen.append(await listen(answer, question))

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        seconds = time.perf_counter() - start
    return figures(seen, seconds) | upstreams(primary, spare)


def figures(seen: list[Seen], seconds: float) -> dict[str, Any]:
    why = Counter(s.error for s in seen if not s.is_finished and s.first is None)
    silent = why.total()
    firsts = sorted(s.first * 1000 for s in seen if s.first is not None)
    return {
        "requests": len(seen),
        "before_first_token_percent": round(100 * (1 - silent / len(seen)), 3),
        "finished": sum(s.is_finished for s in seen),
        "interrupted": sum(not s.is_finished and s.first is not None for s in seen),
        "failed_before_first_token": silent,
        "finished_but_not_whole": sum(s.is_finished and not s.is_right for s in seen),
        "restarts": sum(s.restarts for s in seen),
        "first_token_p50_ms": round(statistics.median(firsts), 1),
        "first_token_p99_ms": round(firsts[int(len(firsts) * 0.99)], 1),
        "seconds": round(seconds, 1),
        "why_none_came": dict(why.most_common(10)),
    }


def upstreams(primary: FaultServer, spare: FaultServer) -> dict[str, Any]:
    met = Counter(r.fault for r in primary.received if r.fault in RANDOM)
    return {
        "primary_calls": len(primary.received),
        "faults_met": met.total(),
        "fallback_calls": len(spare.received),
        "faults": dict(met.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.3, help="of the primary's requests")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    measured: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    for name, (primaries, restart) in STORMS.items():
        measured[name] = asyncio.run(storm(primaries, restart, options))
    print(f"{'':<38}" + "".join(f"{name:>16}" for name in STORMS))
    for key, label in ROWS.items():
        print(f"{label:<38}" + "".join(f"{measured[name][key]:>16,}" for name in STORMS))
    out = ROOT / "benchmarks/results/faults.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(measured, indent=2) + "\n")
    if any(
        measured[name]["before_first_token_percent"] < ASKED_PERCENT
        or measured[name]["finished_but_not_whole"]
        for name in STORMS
    ):
        sys.exit(f"NOT MET: {ASKED_PERCENT} % before the first token, none finished and not whole")


if __name__ == "__main__":
    main()
