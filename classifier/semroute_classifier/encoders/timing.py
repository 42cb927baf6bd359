"""How long an encoder takes for one query at a time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WARM = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one text: the median, and what 19 in 20 stay below."""

    p50_ms: float
    p95_ms: float

    @property
    def per_second(self) -> float:
        """Texts a second at the median."""
        return 1000 / self.p50_ms


def time_each(encode: Callable[[list[str]], object], texts: Sequence[str], rounds: int) -> Timing:
    """Call ``encode`` with one text at a time, ``rounds`` times through ``texts``.

    Raises whatever ``encode`` raises.
    """
    for text in texts[:_WARM]:
        encode([text])
    times = []
    for _ in range(rounds):
        for text in texts:
            start = time.perf_counter()
            encode([text])
            times.append((time.perf_counter() - start) * 1000)
    times.sort()
    return Timing(round(statistics.median(times), 3), round(times[int(len(times) * 0.95)], 3))
