"""What does it cost an answer to come by the router? Upstream, router and client on this machine.

    python benchmarks/stream.py [--quick] [--json] [--no-litellm] [--only first relay ...]

A lean upstream (stream_upstream.py), a server under test and this client, as lean for gRPC as for
HTTP, each a process of its own, all in one run. The servers take turns: none at all (direct: what
upstream and client reach by themselves), a bare gRPC server that only sends (what Python's gRPC
reaches by itself), semroute as ``semroute serve`` runs it (once more with Python's own gRPC
client), and LiteLLM's proxy in an environment of its own, which is installed on first use. Every
text is compared word by word with what the upstream sent. Prints a table and writes
benchmarks/results/stream.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from stream_scenarios import (
    BARE,
    CALLERS,
    GRPCIO,
    LITELLM,
    NAMES,
    OURS,
    SCENARIOS,
    STREAMS,
    TOKEN_MS,
    Contender,
    Found,
    Plan,
    idle,
)
from stream_servers import MODELS, bare, litellm, litellm_programs, semroute, upstream
from stream_ways import Grpc, Grpcio, Http

if TYPE_CHECKING:
    from stream_scenarios import Start

ROOT = Path(__file__).parents[1]
GOALS: dict[tuple[str, str], tuple[str, float]] = {
    ("first", "added_ms"): ("<=", 2),
    ("relay", "chunks_per_second"): (">=", 30_000),
    ("at_once", "completions_per_second"): (">=", 1_000),
    ("paced", "added_gap_p99_ms"): ("<=", 10),
    ("paced", "stalled_streams"): ("<=", 0),
    ("idle", "kb_per_stream"): ("<=", 64),
}
"""What semroute is asked for."""
UNITS = {
    "first": f"time to first token, one call at a time ({MODELS['first']})",
    "relay": "one stream whose upstream sends as fast as it can",
    "at_once": f"completions of one chunk, {CALLERS} callers",
    "paced": f"{STREAMS} streams at {TOKEN_MS} ms a token",
    "idle": f"resident memory for {STREAMS} idle streams",
}
QUICK = Plan(calls=60, rounds=2, chunks=40_000, seconds=1.5, paced_seconds=5, starts=1)


async def measure(plan: Plan, only: list[str], names: list[str]) -> dict[str, Found]:
    """Everything in ``only``, for the servers in ``names``."""
    models = [*MODELS.values(), "idle", plan.paced, plan.flood, plan.short_flood]
    found: dict[str, Found] = {}
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(upstream())
        known: dict[str, Start] = {
            BARE: (bare, Grpc),
            OURS: (lambda: semroute(source.port, models), Grpc),
            LITELLM: (lambda: litellm(source.port, models), Http),
        }
        starts = {name: start for name, start in known.items() if name in names}
        if "idle" in only:
            say(UNITS["idle"])
            found["idle"] = await idle(starts, source.port, plan)
        contenders = [Contender("direct", Http(source), source)]
        for name, (start, way) in starts.items():
            served = await stack.enter_async_context(start())
            contenders.append(Contender(name, way(served), served))
            if name == OURS:
                contenders.append(Contender(GRPCIO, Grpcio(served), served))
        for name, scenario in SCENARIOS.items():
            if name in only:
                say(UNITS[name])
                found[name] = await scenario(contenders, plan)
                gc.collect()
        for one in contenders:
            await one.way.close()
    return found


def table(found: dict[str, Found]) -> str:
    """A row a figure, a column a contender."""
    lines = [f"{'':<24}" + "".join(f"{name:>11}" for name in NAMES) + f"{'semroute is asked':>20}"]
    for scenario, own in found.items():
        lines += ["", UNITS[scenario]]
        for figure in next(iter(reversed(own.values()))):
            cells = [own.get(name, {}).get(figure) for name in NAMES]
            asked = goal(scenario, figure, own)
            lines.append(f"  {figure:<22}" + "".join(map(shown, cells)) + f"{asked:>20}")
    return "\n".join(lines)


def goal(scenario: str, figure: str, own: Found) -> str:
    """What is asked, and whether it is so."""
    if (scenario, figure) not in GOALS or OURS not in own:
        return ""
    relation, limit = GOALS[scenario, figure]
    value = own[OURS][figure]
    met = value is not None and (value <= limit if relation == "<=" else value >= limit)
    return f"{relation} {limit:,} {'met' if met else 'NOT MET'}"


def shown(value: float | None) -> str:
    if value is None:
        return f"{'-':>11}"
    return f"{value:>11,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:>11.3f}"


def say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter, and so less sure")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--no-litellm", action="store_true", help="leave LiteLLM's proxy out")
    parser.add_argument("--only", nargs="+", choices=UNITS, default=list(UNITS))
    options = parser.parse_args()
    names = [BARE, OURS]
    if not options.no_litellm and litellm_is_there():
        names.append(LITELLM)
    plan = QUICK if options.quick else Plan()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    gc.disable()  # a pause of the client would be held against whom it asks
    load = os.getloadavg()[0]
    found = uvloop.run(measure(plan, options.only, names))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": round(load, 2),
        "plan": asdict(plan),
        "figures": rounded(found),
    }
    out = ROOT / "benchmarks/results/stream.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2) if options.json else table(found))


def litellm_is_there() -> bool:
    try:
        litellm_programs()
    except subprocess.CalledProcessError:
        say("LiteLLM is left out")
        return False
    return True


def rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return round(found, 4) if isinstance(found, float) else found


if __name__ == "__main__":
    main()
