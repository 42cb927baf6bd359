"""What the fault server received and how it answered; never what was asked, nor a key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_KEPT = 10_000
"""Older requests are forgotten; the counters and the file know them still."""


def fingerprint(key: str) -> str:
    """What stands for a key: enough to tell keys apart, and useless otherwise. Empty for none."""
    return hashlib.sha256(key.encode()).hexdigest()[:12] if key else ""


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request carries, under any of its usual headers; empty for none."""
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or headers.get("x-api-key", "") or headers.get("api-key", "")


@dataclass
class Received:
    """One request. ``at`` is of ``time.monotonic``; ``over`` is set when it has ended."""

    number: int
    model: str
    key: str
    """The key's fingerprint."""
    stream: bool
    at: float = field(default_factory=time.monotonic)
    date: datetime = field(default_factory=lambda: datetime.now(UTC))
    fault: str = ""
    """What it met, where that was left to chance; otherwise the model's name."""
    status: int | None = None
    pieces: int = 0
    """How many pieces of an answer were sent."""
    left: bool = False
    """Whether the one who asked went away before the server had done."""
    seconds: float | None = None
    """How long it took; None while it is under way."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "date": self.date.isoformat(),
            "model": self.model,
            "fault": self.fault,
            "key": self.key,
            "stream": self.stream,
            "status": self.status,
            "pieces": self.pieces,
            "left": self.left,
            "seconds": None if self.seconds is None else round(self.seconds, 4),
        }


class Journal:
    """The last requests, how many there were by model, and a line for each in ``file``."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.received: deque[Received] = deque(maxlen=MOST_KEPT)
        self.asked: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self._file = file

    def begin(self, model: str, key: str, *, stream: bool) -> Received:
        """A request has come."""
        received = Received(self.asked.total() + 1, model, fingerprint(key), stream)
        self.received.append(received)
        self.asked[model] += 1
        self.running[model] += 1
        return received

    def end(self, received: Received, *, left: bool) -> None:
        """It has ended, one way or the other."""
        received.left = left
        received.seconds = time.monotonic() - received.at
        self.running[received.model] -= 1
        self.left[received.model] += left
        if self._file:
            print(json.dumps(received.as_dict()), file=self._file, flush=True)
        received.over.set()

    def metrics(self, waiting: int) -> Iterator[str]:
        """Lines in Prometheus' form, the first two families as vLLM names them."""
        yield "# TYPE vllm:num_requests_waiting gauge"
        yield f'vllm:num_requests_waiting{{model_name="fault"}} {float(waiting)}'
        yield "# TYPE vllm:num_requests_running gauge"
        yield f'vllm:num_requests_running{{model_name="fault"}} {float(self.running.total())}'
        for name, counts in (("requests", self.asked), ("left", self.left)):
            yield f"# TYPE semroute_fault_{name} counter"
            for model, count in sorted(counts.items()):
                yield f'semroute_fault_{name}_total{{model_name="{model}"}} {count}'
