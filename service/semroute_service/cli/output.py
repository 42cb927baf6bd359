"""What commands print. Errors go to standard error, results to standard output."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from semroute.v1 import router_pb2 as pb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from semroute import RouterError

WIDTH = 110
"""Columns, where a terminal does not say how many it has."""


def fail(message: str, status: int = 1) -> int:
    """Say what went wrong; returns the exit status: 1 failed, 2 wrong usage."""
    print(f"semroute: {message}", file=sys.stderr)
    return status


def describe(error: RouterError) -> str:
    """A failed call for people, one line for each violation."""
    lines = [f"{error.reason or error.code.name}: {error.message}"]
    if error.violations and error.reason != "INVALID_REQUEST":
        lines = [f"{error.reason}:"] + [
            f"  {v.subject}: {v.description}" + (f" (rule {v.rule})" if v.rule else "")
            for v in error.violations
        ]
    if error.retry_after is not None:
        lines.append(f"  try again in {math.ceil(error.retry_after)} s")
    return "\n".join(lines)


def failed(error: RouterError, options: argparse.Namespace) -> int:
    """Say why a call failed, as ``options.json`` wants it; returns the exit status."""
    if options.json:
        print_json({"error": error_dict(error)})
        return 1
    if not error.reason and error.code.name == "UNAVAILABLE":
        return fail(_nobody_there(options.server, error.message))
    text = describe(error)
    if error.code.name == "DEADLINE_EXCEEDED":
        text += "\n  --timeout S waits longer"
    return fail(text)


def _nobody_there(server: str, why: str) -> str:
    """What gRPC says of a server that is not there, or is another's."""
    if "Connection refused" in why:
        return f"no server answers at {server}; start one: semroute serve"
    why = why.rpartition("last error: ")[2]
    return f"no router answers at {server}; --server wants HOST:PORT of one ({why})"


def error_dict(error: RouterError) -> dict[str, Any]:
    """A failed call for machines."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": [
            {"subject": v.subject, "description": v.description, "rule": v.rule}
            for v in error.violations
        ],
        "retry_after": error.retry_after,
    }


def on_terminal() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def as_dict(message: Message) -> dict[str, Any]:
    """A message under its contract's own field names, zeros and empty texts included."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def tier_word(tier: int) -> str:
    return "-" if not tier else pb.Tier.Name(tier).removeprefix("TIER_").lower()


def objective_word(objective: int) -> str:
    """Empty where there is none."""
    return pb.Objective.Name(objective).removeprefix("OBJECTIVE_").lower() if objective else ""


def row_of(decision: pb.Decision) -> dict[str, Any]:
    """A decision in brief, as batches write it."""
    verdict = decision.classification
    chosen = next(c for c in decision.candidates if c.model == decision.model)
    return {
        "task": verdict.task or None,
        "tier": tier_word(verdict.tier) if verdict.tier else None,
        "confidence": round(verdict.confidence, 4),
        "matched": verdict.basis == pb.BASIS_MATCHED,
        "profile": decision.profile,
        "model": decision.model,
        "backend": decision.backend,
        "local": chosen.local,
        "fallback_chain": list(decision.fallback_chain),
        "reason": decision.reason,
        "id": decision.id,
    }


def print_decision(decision: pb.Decision, *, explain: bool = False) -> None:
    """A decision for people."""
    verdict = decision.classification
    tier = tier_word(verdict.tier)
    lines = [
        (
            "task",
            f"{verdict.task or 'none of them'}, tier {tier}, confidence {verdict.confidence:.2f}",
        ),
        ("model", f"{decision.model} on {decision.backend}"),
        ("behind it", ", ".join(decision.fallback_chain) or "nothing"),
        ("why", decision.reason),
    ]
    if explain:
        lines += [
            ("provider", decision.provider),
            ("objective", objective_word(decision.objective) or "none, as written"),
            (
                "primary",
                f"{decision.primary_model}, fallback depth {decision.fallback_depth}",
            ),
            ("profile", f"{decision.profile} (revision {decision.profile_revision})"),
            ("encoder", f"{decision.encoder} (utterances {decision.utterances_revision})"),
            (
                "took",
                f"{decision.elapsed.total.ToMicroseconds() / 1000:.1f} ms, "
                f"{decision.elapsed.embed.ToMicroseconds() / 1000:.1f} ms of it embedding",
            ),
        ]
    print_facts(lines)
    if explain:
        print("\ncandidates")
        rows = [
            [c.model, "local" if c.local else "cloud", c.rule or "admitted", _said_of(c)]
            for c in decision.candidates
        ]
        print_table(["model", "where", "ruling", "reason"], rows)
        print("\nnearest utterances")
        matches = [
            [f"{m.similarity:.2f}", m.task, tier_word(m.tier), m.utterance] for m in verdict.matches
        ]
        print_table(["cosine", "task", "tier", "utterance"], matches)


def _said_of(candidate: pb.Candidate) -> str:
    """Why it was denied, what is known against asking it, and what it was ranked by."""
    said = (candidate.reason, candidate.unavailable, candidate.ranking)
    return "; ".join(filter(None, said))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and texts in two columns; a long text wraps at a terminal's edge."""
    for name, text in facts:
        _print_wrapped(f"{name:<10} ", text)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need; the last one wraps at a terminal's edge, and nowhere else:
    for other programs a row is a line."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head) - 1)]
    for number, row in enumerate(table):
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        _print_wrapped(start, row[-1])
        if number == 0:
            whole = sum(widths) + 2 * len(widths) + max(len(r[-1]) for r in table)
            print("─" * min(_columns() or WIDTH, whole))


def _print_wrapped(start: str, text: str) -> None:
    text = " ".join(text.split())
    columns = _columns()
    room = max(24, columns - len(start)) if columns else len(text) + 1
    wrapped = textwrap.wrap(text, room, break_long_words=False) or [""]
    print((start + wrapped[0]).rstrip())
    for line in wrapped[1:]:
        print(" " * len(start) + line)


def _columns() -> int | None:
    """The terminal's; None where what is printed goes elsewhere."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else None
