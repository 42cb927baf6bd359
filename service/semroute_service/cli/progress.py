"""How far a batch is, on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field

_BAR = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0


@dataclass
class Progress:
    """``done`` of ``total`` items, ``failed`` of them with an error; ``cost`` is in USD."""

    total: int
    done: int = 0
    failed: int = 0
    cost: float = 0.0
    _on_terminal: bool = field(default_factory=lambda: sys.stderr.isatty())
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._before = self.done
        self._shown = self._began

    def advance(self, *, failed: bool = False, cost: float = 0.0) -> None:
        """One more item is done."""
        self.done += 1
        self.failed += failed
        self.cost += cost
        now = time.monotonic()
        if now - self._shown < (_REDRAW_SECONDS if self._on_terminal else _LINE_SECONDS):
            return
        self._shown = now
        if self._on_terminal:
            self.show()
        else:
            print(f"semroute: {self._words()}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Draw the bar, where there is a terminal."""
        if self._on_terminal:
            filled = _BAR * self.done // max(1, self.total)
            line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._words()}"
            print(f"\r{line[: _columns() - 1]}\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line for people; the bar goes on below it."""
        self.close()
        print(f"semroute: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def _words(self) -> str:
        rate = (self.done - self._before) / max(self.seconds, 1e-9)
        left = f"{_clock((self.total - self.done) / rate)} left" if rate else "waiting"
        words = [f"{self.done}/{self.total}", f"{rate:.1f}/s", left, f"{self.failed} failed"]
        return "  ".join([*words, f"{self.cost:.4f} USD"] if self.cost else words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
