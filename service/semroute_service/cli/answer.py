"""An answer as a row of a batch's output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from semroute.v1 import router_pb2 as pb
from semroute_service.cli import output
from semroute_service.cli.items import NANO

if TYPE_CHECKING:
    from semroute import RouterError


@dataclass
class Answer:
    """Gathers the events of an item's calls, of which the last counts; ``attempts`` are of all."""

    attempts: list[pb.Attempt] = field(default_factory=list)
    _decision: pb.Decision | None = None
    _finish: pb.Finish | None = None
    _first: int = 0

    def begin(self) -> None:
        """The item is asked, perhaps once more."""
        self._first = len(self.attempts)
        self._decision = self._finish = None
        self._discard()

    def take(self, event: pb.CompleteResponse) -> None:
        match event.WhichOneof("event"):
            case "decision":
                self._decision = event.decision
            case "delta":
                self._append(event.delta)
            case "attempt":
                self.attempts.append(event.attempt)
            case "restart":
                self._discard()
            case "finish":
                self._finish = event.finish
                self.attempts[self._first :] = event.finish.attempts

    @property
    def is_whole(self) -> bool:
        """Whether the last call ended as a whole answer does."""
        return self._decision is not None and self._finish is not None

    @property
    def was_asked(self) -> bool:
        """Whether a backend had the last call."""
        return len(self.attempts) > self._first

    @property
    def was_rate_limited(self) -> bool:
        """Whether an upstream asked for patience in the last call."""
        limited = pb.ERROR_CLASS_PROVIDER_RATE_LIMIT
        return any(attempt.error_class == limited for attempt in self.attempts[self._first :])

    def row(self) -> dict[str, Any]:
        """The whole answer."""
        assert self._decision
        assert self._finish
        verdict, usage = self._decision.classification, self._finish.usage
        row: dict[str, Any] = {"text": "".join(self._text)}
        if self._reasoning:
            row["reasoning"] = "".join(self._reasoning)
        if self._calls:
            row["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return {
            **row,
            "finish_reason": _word(pb.FinishReason, self._finish.reason, "FINISH_REASON_"),
            "model": self._finish.model,
            "backend": self._finish.backend,
            "task": verdict.task or None,
            "tier": output.tier_word(verdict.tier) if verdict.tier else None,
            "confidence": round(verdict.confidence, 4),
            "usage": {f.name: getattr(usage, f.name) for f in usage.DESCRIPTOR.fields},
            "cost_usd": self._cost,
            "attempts": len(self.attempts),
        }

    def failed(self, error: RouterError) -> dict[str, Any]:
        """Why there is none, and what was tried."""
        tried = [_tried(attempt) for attempt in self.attempts]
        return {
            "error": {**output.error_dict(error), "attempts": tried},
            "cost_usd": self._cost,
            "attempts": len(tried),
        }

    @property
    def _cost(self) -> float:
        return sum(attempt.cost_nano_usd for attempt in self.attempts) / NANO

    def _discard(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def _append(self, delta: pb.Delta) -> None:
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for piece in delta.tool_calls:
            function = {"name": "", "arguments": ""}
            new = {"id": "", "type": "function", "function": function}
            call = self._calls.setdefault(piece.index, new)
            call["id"] += piece.id
            call["function"]["name"] += piece.name
            call["function"]["arguments"] += piece.arguments


def _tried(attempt: pb.Attempt) -> dict[str, Any]:
    return {
        "model": attempt.model,
        "backend": attempt.backend,
        "error": _word(pb.ErrorClass, attempt.error_class, "ERROR_CLASS_"),
        "seconds": round(attempt.duration.ToMicroseconds() / 1e6, 3),
    }


def _word(enum: Any, value: int, prefix: str) -> str:
    """A value's name; its number, where only a newer contract names it."""
    if value not in enum.values():
        return str(value)
    name: str = enum.Name(value)
    return name.removeprefix(prefix).lower()
