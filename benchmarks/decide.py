"""How long does a decision take, over gRPC, on this machine?

Server and client share the machine. In one run: an empty unary RPC (a health check), an encoder
pass alone, Decide for unique queries one at a time, and Decide with 32 callers. Medians of unique
queries made from the validation set. Writes benchmarks/results/decide.json.

    python benchmarks/decide.py [--encoder bundled] [--queries 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from semroute import RouterClient
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).parents[1]
CALLERS = 32


async def timed(calls: list[Callable[[], Awaitable[object]]]) -> dict[str, float]:
    """Milliseconds of each call, one after the other."""
    times = []
    for call in calls:
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    return {
        "p50_ms": round(statistics.median(times), 3),
        "p95_ms": round(times[int(len(times) * 0.95)], 3),
    }


async def throughput(client: RouterClient, queries: list[str]) -> float:
    """Decisions per second with ``CALLERS`` callers that never pause."""
    waiting = iter(queries)

    async def caller() -> None:
        for query in waiting:
            await client.decide(query, timeout=60)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return round(len(queries) / (time.perf_counter() - start), 1)


async def measure(encoder: str, count: int) -> dict[str, object]:
    lines = (ROOT / "tests/data/validation.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["query"] for line in lines]
    queries = [f"{texts[i % len(texts)]} ({i})" for i in range(3 * count)]
    async with (
        running_server(
            profiles=ROOT / "profiles",
            utterances=ROOT / "utterances",
            active="development",
            encoder=encoder,
        ) as server,
        RouterClient(server.address) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        router = await server.server.ready()
        ready = await router.classifiers.get("auto")
        for query in texts[:20]:
            await client.decide(query)
        empty = health_pb2.HealthCheckRequest()
        return {
            "encoder": ready.classifier.encoder.name,
            "utterances": len(router.classifiers.utterances.utterances),
            "empty_rpc": await timed([lambda: health.Check(empty)] * count),
            "encoder_pass": await timed(
                [lambda q=q: ready.states([q]) for q in queries[:count]]  # type: ignore[misc]
            ),
            "decide": await timed(
                [lambda q=q: client.decide(q) for q in queries[count : 2 * count]]  # type: ignore[misc]
            ),
            "callers": CALLERS,
            "decisions_per_second": await throughput(client, queries[2 * count :]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.encoder, options.queries))
    figures["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    out = ROOT / "benchmarks/results/decide.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<22} {value}")


if __name__ == "__main__":
    main()
