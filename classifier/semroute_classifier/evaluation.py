"""How good is the classifier on queries whose task is known?

A file has one JSON object a line: ``query``, ``task`` (``none`` for out of scope), optionally
``tier`` (low, medium, high) and ``acceptable`` (further tasks that a careful reader would take).
Other keys are ignored. A figure that cannot be computed is None.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.classifier import Basis
from semroute_classifier.documents import ConfigError, Problem
from semroute_classifier.utterances import NONE, Tier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from semroute_classifier.classifier import Classification, Classifier

_BINS = 15
_LATENCY_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its right answers."""

    query: str
    task: str
    tier: Tier | None = None
    acceptable: tuple[str, ...] = ()

    @property
    def in_scope(self) -> bool:
        return self.task != NONE


def load_examples(path: Path) -> list[Example]:
    """Read a JSONL file of examples; raises ``ConfigError`` with every wrong line."""
    problems: list[Problem] = []
    examples: list[Example] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other separators
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(_example(json.loads(line)))
        except ValueError as error:
            problems.append(Problem(str(path), number, "", str(error)))
    if not examples and not problems:
        problems.append(Problem(str(path), 0, "", "holds no example"))
    if problems:
        raise ConfigError(problems)
    return examples


def evaluate(classifier: Classifier, examples: Sequence[Example]) -> dict[str, Any]:
    """Every figure that describes ``classifier`` on ``examples``, ready for JSON.

    ``accuracy`` and ``lenient_accuracy`` take the best task, abstention ignored, over in-scope
    queries; ``selective_accuracy`` is the accuracy over those that were matched;
    ``abstain_precision`` and ``abstain_recall`` see abstention as finding out-of-scope queries;
    ``auroc`` parts in scope from out of scope by confidence; ``ece`` has 15 equal-width bins;
    latencies are of one query at a time, in milliseconds.
    """
    verdicts = [_judge(classifier, example.query) for example in examples]
    inside = [(e, v) for e, v in zip(examples, verdicts, strict=True) if e.in_scope]
    outside = [v for e, v in zip(examples, verdicts, strict=True) if not e.in_scope]
    matched = [(e, v) for e, v in inside if v.basis is Basis.MATCHED]
    abstained_inside = len(inside) - len(matched)
    caught = sum(v.basis is Basis.DEFAULTED for v in outside)
    tiered = [(e.tier, v.best_tier) for e, v in inside if e.tier]
    return {
        "n": len(examples),
        "accuracy": _mean([v.best_task == e.task for e, v in inside]),
        "lenient_accuracy": _mean([v.best_task in (e.task, *e.acceptable) for e, v in inside]),
        "coverage": _mean([v.basis is Basis.MATCHED for _, v in inside]),
        "selective_accuracy": _mean([v.best_task == e.task for e, v in matched]),
        "abstain_precision": _ratio(caught, caught + abstained_inside),
        "abstain_recall": _ratio(caught, len(outside)),
        "auroc": _auroc([v.confidence for _, v in inside], [v.confidence for v in outside]),
        "tier_accuracy": _mean([right == said for right, said in tiered]),
        "tier_macro_f1": _macro_f1(tiered),
        "ece": _ece([(v.confidence, v.best_task == e.task) for e, v in inside]),
        "latency_ms": _latency(classifier, [e.query for e in examples]),
        "confusion": _confusion(
            [(e.task, v.task or NONE) for e, v in zip(examples, verdicts, strict=True)]
        ),
        "encoder": classifier.encoder.name,
        "utterances_revision": classifier.utterances.revision,
    }


def _judge(classifier: Classifier, query: str) -> Classification:
    return classifier.judge([query], classifier.embed([query]))[0]


def _example(row: Any) -> Example:
    if not isinstance(row, dict):
        raise ValueError("must be a JSON object")
    query, task, tier = row.get("query"), row.get("task"), row.get("tier")
    acceptable = row.get("acceptable") or []
    if not isinstance(query, str) or not query.strip():
        raise ValueError("query must be text that is not empty")
    if not isinstance(task, str) or not task:
        raise ValueError(f'task must be the name of a task, or "{NONE}"')
    if tier is not None and tier not in [t.word for t in Tier]:
        raise ValueError(f"tier must be low, medium or high, not {tier!r}")
    if not isinstance(acceptable, list) or not all(isinstance(a, str) for a in acceptable):
        raise ValueError("acceptable must be a list of task names")
    return Example(query, task, Tier[tier.upper()] if tier else None, tuple(acceptable))


def _mean(values: Sequence[bool]) -> float | None:
    return _ratio(sum(values), len(values))


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _auroc(inside: list[float], outside: list[float]) -> float | None:
    if not inside or not outside:
        return None
    from sklearn.metrics import roc_auc_score

    truth = [1] * len(inside) + [0] * len(outside)
    return round(float(roc_auc_score(truth, inside + outside)), 4)


def _macro_f1(pairs: list[tuple[Tier, Tier | None]]) -> float | None:
    if not pairs:
        return None
    from sklearn.metrics import f1_score

    truth = [int(right) for right, _ in pairs]
    said = [int(tier or 0) for _, tier in pairs]
    labels = sorted(set(truth))
    return round(float(f1_score(truth, said, labels=labels, average="macro", zero_division=0)), 4)


def _ece(pairs: list[tuple[float, bool]]) -> float | None:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    if not pairs:
        return None
    confidence = np.array([c for c, _ in pairs])
    right = np.array([r for _, r in pairs], dtype=float)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return round(float(sum(gaps)), 4)


def _latency(classifier: Classifier, queries: list[str]) -> dict[str, float | None]:
    times = []
    for query in list(dict.fromkeys(queries))[:_LATENCY_SAMPLE]:
        start = time.perf_counter()
        _judge(classifier, query)
        times.append((time.perf_counter() - start) * 1000)
    if not times:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def _confusion(pairs: list[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Right task → task said → how often; ``none`` is abstention."""
    table: dict[str, dict[str, int]] = {}
    for right, said in sorted(pairs):
        row = table.setdefault(right, {})
        row[said] = row.get(said, 0) + 1
    return table
