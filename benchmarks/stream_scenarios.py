"""What stream.py measures: each scenario asks all contenders the same, in turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from stream_servers import MODELS, Served
from stream_ways import Answer, Grpc, Http

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from stream_ways import Way

    Start: TypeAlias = tuple[
        Callable[[], AbstractAsyncContextManager[Served]], type[Http] | type[Grpc]
    ]
    """How a server is started, and what asks it."""

BARE, OURS, LITELLM = "bare gRPC", "semroute", "LiteLLM"
GRPCIO = "by grpcio"
"""semroute again, asked by Python's own client."""
NAMES = ("direct", BARE, OURS, GRPCIO, LITELLM)
CALLERS = 32
STREAMS = 128
TOKEN_MS = 20
STALL_SECONDS = 1.0
"""A gap so long is a stall."""
FIRST_FEW = 4
"""Idle streams that are open before memory is first looked at: what only the first ones cost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything is measured."""

    calls: int = 300
    """For the time to first token."""
    rounds: int = 5
    chunks: int = 120_000
    """Of a relayed stream; LiteLLM's has a twentieth."""
    seconds: float = 4.0
    """For which callers ask at once."""
    paced_seconds: int = 30
    starts: int = 3
    """Fresh processes whose memory is looked at."""

    @property
    def paced(self) -> str:
        return f"paced-{self.tokens}-{TOKEN_MS}"

    @property
    def tokens(self) -> int:
        return self.paced_seconds * 1000 // TOKEN_MS

    @property
    def flood(self) -> str:
        return f"flood-{self.chunks}"

    @property
    def short_flood(self) -> str:
        return f"flood-{self.chunks // 20}"


@dataclass(slots=True)
class Contender:
    """A server under test, or the upstream itself, and the way there."""

    name: str
    way: Way
    served: Served

    def cpu(self) -> float:
        """Seconds of processor that its process has used."""
        times = psutil.Process(self.served.pid).cpu_times()
        return float(times.user + times.system)


Found = dict[str, dict[str, Any]]
"""Figures by contender."""


async def first(contenders: list[Contender], plan: Plan) -> Found:
    """In turns, call by call; what a server adds is the median of the calls' differences."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    decided: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(plan.calls):
        for one in contenders:
            answer = await one.way.ask(MODELS["first"])
            at, _text = next(iter(one.way.words(answer)))
            took = one.way.decided(answer)
            decided[one.name].append(took * 1000)
            times[one.name].append((at - answer.asked - took) * 1000)
    direct = times[contenders[0].name]
    return {
        name: {
            "p50_ms": statistics.median(own),
            "p99_ms": quantile(own, 0.99),
            "added_ms": statistics.median(a - b for a, b in zip(own, direct, strict=True)),
            "decision_ms": statistics.median(decided[name]),
        }
        for name, own in times.items()
    }


async def relay(contenders: list[Contender], plan: Plan) -> Found:
    """Chunks that the upstream counted, over the seconds from asking to the end."""
    upstream = contenders[0].served.port
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(plan.rounds):
        for one in contenders:
            if one.name == BARE:
                continue
            model = plan.short_flood if one.name == LITELLM else plan.flood
            count = int(model.partition("-")[2])
            before, sent = one.cpu(), (await stats(upstream))["sent"]
            answer = await one.way.ask(model)
            cpu = (one.cpu() - before) / count * 1e6
            check(one, answer, (await stats(upstream))["sent"] - sent)
            rows.setdefault(one.name, []).append((count / answer.seconds, cpu))
    return {
        name: {
            "chunks_per_second": statistics.median(rate for rate, _ in row),
            "cpu_us_per_chunk": statistics.median(cpu for _, cpu in row),
        }
        for name, row in rows.items()
    }


async def at_once(contenders: list[Contender], plan: Plan) -> Found:
    """Callers that never pause, each with one call at a time."""
    rows: dict[str, list[tuple[float, float]]] = {c.name: [] for c in contenders}
    for turn in range(plan.rounds + 1):
        for one in contenders:
            before, start = one.cpu(), time.monotonic()
            seconds = plan.seconds if turn else 0.5
            answers = await asyncio.gather(
                *(_calls(one.way, start + seconds) for _ in range(CALLERS))
            )
            took, cpu = time.monotonic() - start, one.cpu() - before
            done = [answer for own in answers for answer in own]
            for answer in done:
                check(one, answer, 1)
            if turn:  # the first turn opens connections
                rows[one.name].append((len(done) / took, cpu / len(done) * 1000))
    return {
        name: {
            "completions_per_second": statistics.median(rate for rate, _ in row),
            "cpu_ms_per_completion": statistics.median(cpu for _, cpu in row),
        }
        for name, row in rows.items()
    }


async def _calls(way: Way, until: float) -> list[Answer]:
    answers = []
    while time.monotonic() < until:
        answers.append(await way.ask(MODELS["one"]))
    return answers


async def paced(contenders: list[Contender], plan: Plan) -> Found:
    """Each word says when it was sent: what came later than that, and later than the one before."""
    found: Found = {}
    for one in contenders:
        answers = [Answer() for _ in range(STREAMS)]
        tasks = [asyncio.create_task(one.way.ask(plan.paced, a)) for a in answers]
        before, start = one.cpu(), time.monotonic()
        _done, late = await asyncio.wait(tasks, timeout=plan.paced_seconds * 1.5 + 5)
        cpu, took = one.cpu() - before, time.monotonic() - start
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found[one.name] = {**_pace(one, answers, plan.tokens), "cpu_share": cpu / took}
    return found


def _pace(one: Contender, answers: list[Answer], count: int) -> dict[str, Any]:
    added: list[float] = []
    delays: list[float] = []
    gaps: list[float] = []
    """The longest of each stream, in seconds."""
    for answer in answers:
        stamps = _stamped(one.way, answer)
        delays += [(at - sent) * 1000 for at, sent in stamps]
        pairs = list(itertools.pairwise(stamps))
        added += [((b[0] - a[0]) - (b[1] - a[1])) * 1000 for a, b in pairs]
        gaps.append(max((b[0] - a[0] for a, b in pairs), default=math.inf))
    stalled = [not a.whole or gap > STALL_SECONDS for a, gap in zip(answers, gaps, strict=True)]
    return {
        "whole": sum(answer.whole for answer in answers),
        "words_share": len(delays) / (count * len(answers)),
        "delay_p50_ms": quantile(delays, 0.5),
        "delay_p99_ms": quantile(delays, 0.99),
        "added_gap_p99_ms": quantile(added, 0.99),
        "longest_gap_ms": max((gap * 1000 for gap in gaps if gap < math.inf), default=None),
        "stalled_streams": sum(stalled),
    }


def _stamped(way: Way, answer: Answer) -> list[tuple[float, float]]:
    """When each word arrived, and when it was sent; raises where one is missing or twice."""
    stamps: list[tuple[float, float]] = []
    for at, text in way.words(answer):
        for word in text.split():
            number, _, sent = word.partition(":")
            if int(number) != len(stamps):
                raise SystemExit(f"word {len(stamps)} is not where it should be: {number}")
            stamps.append((at, int(sent) / 1e9))
    return stamps


async def idle(starts: Mapping[str, Start], port: int, plan: Plan) -> Found:
    """Resident size before and after, in a process that has just begun; 1 KB is 1,024 bytes."""
    sizes: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(plan.starts):
        for name, (start, way) in starts.items():
            async with start() as served:
                sizes[name].append(await _grown(way(served), served, port, name))
    return {name: {"kb_per_stream": statistics.median(own)} for name, own in sizes.items()}


async def _grown(way: Way, served: Served, port: int, name: str) -> float:
    """KB a stream; all callers leave in the end, and the upstream must see it."""
    process = psutil.Process(served.pid)
    held = [asyncio.create_task(way.ask("idle")) for _ in range(FIRST_FEW)]
    await opened(port, FIRST_FEW, name)
    before = process.memory_info().rss
    held += [asyncio.create_task(way.ask("idle")) for _ in range(STREAMS)]
    await opened(port, FIRST_FEW + STREAMS, name)
    after = process.memory_info().rss
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await opened(port, 0, name)
    await way.close()
    return float(after - before) / 1024 / STREAMS


async def opened(port: int, count: int, name: str, seconds: float = 20) -> None:
    """Until so many answers are open at the upstream, and what they began has settled."""
    ends = time.monotonic() + seconds
    while name != BARE and (await stats(port))["open"] != count:
        if time.monotonic() > ends:
            raise SystemExit(f"{name}: not {count} streams open at the upstream")
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)


async def stats(port: int) -> dict[str, int]:
    """What the upstream has done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stats HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    found: dict[str, int] = json.loads(await reader.readuntil(b"}"))
    writer.close()
    return found


def check(one: Contender, answer: Answer, count: int) -> None:
    """Every word once, in order, and an ending."""
    text = "".join(text for _, text in one.way.words(answer))
    if not answer.whole or text != "".join(f"{i} " for i in range(count)):
        raise SystemExit(f"{one.name}: the answer is not what was sent: {text[:100]!r}")


def quantile(values: list[float], share: float) -> float | None:
    return sorted(values)[int(share * (len(values) - 1))] if values else None


SCENARIOS = {"first": first, "relay": relay, "at_once": at_once, "paced": paced}
"""Those that ask servers which have run for a while."""
