"""How long does a decision take, over gRPC, on this machine?

A server of its own process is asked by this one; both share the machine. For the cascade off and
on, in one run: seconds until the server is healthy with everything built, its resident memory, an
engine pass alone, an empty unary RPC (a health check), Decide for unique queries one at a time, and
Decide with 32 callers, during which the health check goes on: what it takes more is the lag of the
event loop. Writes benchmarks/results/decide.json.

    python benchmarks/decide.py [--clinc DIR] [--queries 400]

Without --clinc: the shipped utterances and the queries of tests/data. With it: utterances made from
DIR/train.jsonl and DIR/out_of_scope_train.jsonl, queries from DIR/validation.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from semroute.v1 import router_pb2 as pb
from semroute.v1 import router_pb2_grpc
from semroute_classifier.encoders import load_encoder
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

ROOT = Path(__file__).parents[1]
CALLERS = 32
PORT = 50917
PROFILE = """
classifier: {{encoder: bundled, cascade: "{cascade}"}}
backends: {{echo: {{provider: echo}}}}
models: {{echo: {{backend: echo}}}}
routes: {{default: {{model: echo}}}}
"""


def queries_of(path: Path) -> list[str]:
    return [json.loads(line)["query"] for line in path.read_text(encoding="utf-8").splitlines()]


def write_utterances(clinc: Path, folder: Path) -> None:
    """One file a task from the training lines, as JSON, which is YAML."""
    by_task: defaultdict[str, list[str]] = defaultdict(list)
    for name in ("train.jsonl", "out_of_scope_train.jsonl"):
        for line in (clinc / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_task[row["task"]].append(row["query"])
    folder.mkdir()
    for task, texts in by_task.items():
        unique = list(dict.fromkeys(texts))
        (folder / f"{task}.yaml").write_text(json.dumps({"utterances": unique}), encoding="utf-8")


@contextlib.asynccontextmanager
async def server(cascade: str, utterances: Path, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A server process that is healthy; gives how long that took, and its process id."""
    profiles = folder / f"profiles-{cascade}"
    profiles.mkdir(exist_ok=True)
    (profiles / "bench.yaml").write_text(PROFILE.format(cascade=cascade), encoding="utf-8")
    command = [sys.executable, "-m", "semroute_service.cli", "serve", "--listen"]
    command += [f"127.0.0.1:{PORT}", "--profiles", str(profiles), "--profile", "bench"]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--utterances", str(utterances)],
        env={**os.environ, "SEMROUTE_HOME": str(default_home())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            await until_healthy(process)
            yield {"ready_s": round(time.perf_counter() - start, 2), "pid": process.pid}
        finally:
            process.terminate()


async def until_healthy(process: subprocess.Popen[bytes], seconds: float = 400) -> None:
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise SystemExit("the server ended; is the port taken?")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{PORT}") as channel:
            with contextlib.suppress(grpc.aio.AioRpcError):
                reply = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=5
                )
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        await asyncio.sleep(0.05)
    raise SystemExit("the server did not become healthy")


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return round(int(text.split("VmRSS:")[1].split()[0]) / 1024, 1)


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """Milliseconds of each call, one after the other."""
    times = []
    for call in calls:
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1000)
    return times


def spread(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3),
    }


async def under_load(
    decide: Callable[[str], Awaitable[Any]], empty: Callable[[], Awaitable[Any]], texts: list[str]
) -> dict[str, Any]:
    """Decisions per second with callers that never pause, and an empty RPC meanwhile."""
    waiting = iter(texts)
    busy = True
    empties: list[float] = []

    async def caller() -> None:
        for text in waiting:
            await decide(text)

    async def watch() -> None:
        while busy:
            empties.extend(await timed([empty]))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    seconds = time.perf_counter() - start
    busy = False
    await watching
    return {"per_second": round(len(texts) / seconds, 1), "empty_rpc": spread(empties)}


async def measure(
    cascade: str, utterances: Path, folder: Path, texts: list[str], count: int
) -> Any:
    async with server(cascade, utterances, folder):
        pass  # builds whatever is missing, so that the next start finds everything
    async with (
        server(cascade, utterances, folder) as started,
        grpc.aio.insecure_channel(f"127.0.0.1:{PORT}") as channel,
    ):
        router = router_pb2_grpc.RouterServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        seen: set[str] = set()
        static = [0, 0]

        async def decide(text: str) -> None:
            if text in seen:  # a number makes it unique, so that no verdict is remembered
                text = f"{text} {len(seen)}"
            seen.add(text)
            message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text=text)])
            reply = await router.Decide(pb.DecideRequest(query=pb.Query(messages=[message])))
            static[0] += reply.decision.classification.stage == pb.STAGE_STATIC
            static[1] += 1

        async def empty() -> None:
            await health.Check(health_pb2.HealthCheckRequest())

        await timed([lambda t=t: decide(t) for t in texts[:50]])  # type: ignore[misc]
        alternating: list[Callable[[], Awaitable[None]]] = []
        for text in texts[:count]:
            alternating += [empty, lambda t=text: decide(t)]  # type: ignore[misc]
        times = await timed(alternating)
        memory = resident_mb(started["pid"])
        load = await under_load(decide, empty, (texts[count:] * 10)[: count * 6])
        return {
            "ready_s": started["ready_s"],
            "resident_mb": memory,
            "empty_rpc": spread(times[0::2]),
            "decide": spread(times[1::2]),
            f"with_{CALLERS}_callers": load,
            "static_share": round(static[0] / static[1], 3),
        }


def engine_pass(texts: list[str]) -> dict[str, float]:
    engine = load_encoder("bundled", default_home())
    engine.encode(texts[:20])
    times = []
    for text in texts:
        start = time.perf_counter()
        engine.encode([text])
        times.append((time.perf_counter() - start) * 1000)
    return spread(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", type=Path)
    parser.add_argument("--queries", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.clinc:
            utterances = folder / "utterances"
            write_utterances(options.clinc, utterances)
            texts = queries_of(options.clinc / "validation.jsonl")
        else:
            utterances = ROOT / "utterances"
            texts = [
                q
                for f in ("validation", "heldout")
                for q in queries_of(ROOT / f"tests/data/{f}.jsonl")
            ]
        random.Random(0).shuffle(texts)
        figures: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        for cascade in ("off", "on"):
            figures[f"cascade_{cascade}"] = asyncio.run(
                measure(cascade, utterances, folder, texts, options.queries)
            )
        figures["engine_pass"] = engine_pass(texts[: options.queries])
    name = "decide-clinc.json" if options.clinc else "decide.json"
    out = ROOT / "benchmarks/results" / name
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
