"""How good is the classifier on queries whose task is known?

A file has one JSON object a line: ``query``, ``task`` (``none`` for out of scope), optionally
``tier`` (low, medium, high) and ``acceptable`` (further tasks that a careful reader would take).
Other keys are ignored. A figure that cannot be computed is None.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.classifier import Basis, Stage
from semroute_classifier.documents import ConfigError, Problem
from semroute_classifier.utterances import NONE, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from semroute_classifier.classifier import Classification, Classifier

BINS = 15
"""Equal-width bins of the confidence."""


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


@dataclass(frozen=True, slots=True)
class Judged:
    """An example with the verdict on its query, and how long that took."""

    example: Example
    verdict: Classification
    milliseconds: float

    @property
    def said(self) -> str:
        """The task that was said; ``none`` where the query was defaulted."""
        return self.verdict.task or NONE

    @property
    def matched(self) -> bool:
        return self.verdict.basis is Basis.MATCHED

    @property
    def static(self) -> bool:
        """Whether the static encoder answered."""
        return self.verdict.stage is Stage.STATIC

    @property
    def right(self) -> bool:
        """Whether the best task is the right one, abstention ignored."""
        return self.verdict.best_task == self.example.task

    @property
    def acceptable(self) -> bool:
        """Whether the best task is one that a careful reader would take."""
        return self.right or self.verdict.best_task in self.example.acceptable


@dataclass(frozen=True, slots=True)
class Bin:
    """In-scope queries of like confidence: ``number`` / ``BINS`` is the least of them."""

    number: int
    count: int
    confidence: float
    accuracy: float


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


def evaluate(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    cascade: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judge ``examples`` and reckon every figure, ready for JSON."""
    return figures_of(
        judge_all(classifier, examples, cascade=cascade, progress=progress), classifier
    )


def judge_all(
    classifier: Classifier,
    examples: Sequence[Example],
    *,
    cascade: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Judged]:
    """The verdict on each of ``examples``, in order; each query is asked once, on its own.

    With ``cascade`` the static encoder may answer; without, the full one always does. ``progress``
    is called with (done, total).
    """
    queries = list(dict.fromkeys(example.query for example in examples))
    if queries:  # the first call pays for what is lazy
        classifier.classify(queries[:1], cascade=cascade)
    answers: dict[str, tuple[Classification, float]] = {}
    for query in queries:
        start = time.perf_counter()
        verdict = classifier.classify([query], cascade=cascade)[0]
        answers[query] = verdict, (time.perf_counter() - start) * 1000
        if progress:
            progress(len(answers), len(queries))
    return [Judged(example, *answers[example.query]) for example in examples]


def figures_of(judged: Sequence[Judged], classifier: Classifier) -> dict[str, Any]:
    """Every figure that describes ``classifier`` on what it has ``judged``, ready for JSON.

    ``accuracy`` and ``lenient_accuracy`` take the best task, abstention ignored, over in-scope
    queries; ``selective_accuracy`` is the accuracy over those that were matched;
    ``abstain_precision`` and ``abstain_recall`` see abstention as finding out-of-scope queries;
    ``auroc`` parts in scope from out of scope by confidence; ``ece`` has 15 equal-width bins;
    ``static_share`` is of the queries that the static encoder answered, ``static_slip`` of those
    out of scope that it let through; latencies are of one query at a time, in milliseconds, over
    unique queries.
    """
    inside = [j for j in judged if j.example.in_scope]
    outside = [j for j in judged if not j.example.in_scope]
    matched = [j for j in inside if j.matched]
    caught = sum(not j.matched for j in outside)
    tiered = [(j.example.tier, j.verdict.best_tier) for j in inside if j.example.tier]
    return {
        "n": len(judged),
        "accuracy": _mean([j.right for j in inside]),
        "lenient_accuracy": _mean([j.acceptable for j in inside]),
        "coverage": _ratio(len(matched), len(inside)),
        "selective_accuracy": _mean([j.right for j in matched]),
        "abstain_precision": _ratio(caught, caught + len(inside) - len(matched)),
        "abstain_recall": _ratio(caught, len(outside)),
        "auroc": _auroc([score(j) for j in inside], [score(j) for j in outside]),
        "tier_accuracy": _mean([right == said for right, said in tiered]),
        "tier_macro_f1": _macro_f1(tiered),
        "ece": _ece(judged),
        "static_share": _mean([j.static for j in judged]),
        "static_slip": _mean([j.matched and j.static for j in outside]),
        "latency_ms": _latency(judged),
        "confusion": _confusion([(j.example.task, j.said) for j in judged]),
        "encoder": classifier.encoder.name,
        "utterances_revision": classifier.utterances.revision,
    }


def score(judged: Judged) -> float:
    """By what in scope is told from out of scope; larger is more in scope."""
    return judged.verdict.confidence


def calibration(judged: Sequence[Judged]) -> list[Bin]:
    """The bins of the confidence that hold an in-scope query, lowest first."""
    inside = [j for j in judged if j.example.in_scope]
    confidence = np.array([j.verdict.confidence for j in inside])
    right = np.array([j.right for j in inside], dtype=float)
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(int(b), int(own.sum()), float(confidence[own].mean()), float(right[own].mean()))
        for b in np.unique(number)
        for own in [number == b]
    ]


def risk_coverage(judged: Sequence[Judged]) -> list[tuple[float, float]]:
    """(coverage, accuracy) over in-scope queries as the least score that is answered falls.

    Queries of equal score are answered together, so that no order among them is invented.
    """
    inside = sorted((j for j in judged if j.example.in_scope), key=score, reverse=True)
    points: list[tuple[float, float]] = []
    answered = right = 0
    for _, equals in itertools.groupby(inside, key=score):
        for one in equals:
            answered += 1
            right += one.right
        points.append((answered / len(inside), right / answered))
    return points


def _example(row: Any) -> Example:
    if not isinstance(row, dict):
        raise ValueError("must be a JSON object")
    query, task, tier = row.get("query"), row.get("task"), row.get("tier")
    acceptable = row.get("acceptable") or []
    if not isinstance(query, str) or not query.strip():
        raise ValueError("query must be text that is not empty")
    if any("\ud800" <= character <= "\udfff" for character in query):
        raise ValueError("query holds half a surrogate pair, which is no character")
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


def _ece(judged: Sequence[Judged]) -> float | None:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    bins = calibration(judged)
    total = sum(b.count for b in bins)
    if not total:
        return None
    return round(sum(abs(b.confidence - b.accuracy) * b.count for b in bins) / total, 4)


def _latency(judged: Sequence[Judged]) -> dict[str, float | None]:
    times = list({j.example.query: j.milliseconds for j in judged}.values())
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
