"""The half of others.py that runs in the environment of aurelio's semantic-router.

    python others_worker.py CASE.json VECTORS.npz      # others.py calls it so

CASE holds ``utterances`` (text, task), ``held`` (the numbers of those kept apart for fitting) and
``queries``; VECTORS holds ``utterances`` and ``queries``, a row each. Prints one JSON list: what
the router said under each of its settings. Needs numpy and semantic-router, of its current line
(1.x, ``IndexedRouter``) or of the one before (0.x, ``SemanticRouter``), and nothing of semroute.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import semantic_router  # type: ignore[import-not-found]
from semantic_router import Route
from semantic_router.encoders import DenseEncoder  # type: ignore[import-not-found]
from semantic_router.index import LocalIndex  # type: ignore[import-not-found]

NONE = "none"
ENCODERS_THRESHOLD = 0.5
"""What the 0.x line's own encoder class sets for all-MiniLM-L6-v2."""
FIT_QUERIES, FIT_SECONDS, FIT_ITERATIONS = 500, 120.0, 500
"""Bounds of the 0.x line's random search; the last is its default."""

Pairs = list[tuple[str, str]]


class Known(DenseEncoder):  # type: ignore[misc]
    """Looks vectors up, so that a decision's time holds no encoder."""

    vectors: Any

    def __call__(self, docs: list[str]) -> list[list[float]]:
        return [self.vectors[text] for text in docs]

    async def acall(self, docs: list[str]) -> list[list[float]]:
        return self(docs)


@dataclass(frozen=True, slots=True)
class Case:
    """What is learned from, without and with the part kept apart, and what is asked."""

    utterances: Pairs
    kept: Pairs
    held: Pairs
    queries: list[str]
    vectors: dict[str, list[float]]


def read_case(case: Path, vectors: Path) -> Case:
    given = json.loads(case.read_text(encoding="utf-8"))
    arrays = np.load(vectors)
    utterances = [(text, task) for text, task in given["utterances"]]
    held = set(given["held"])
    texts = [text for text, _ in utterances]
    return Case(
        utterances=utterances,
        kept=[pair for i, pair in enumerate(utterances) if i not in held],
        held=[pair for i, pair in enumerate(utterances) if i in held],
        queries=given["queries"],
        vectors=dict(zip(texts, arrays["utterances"].tolist(), strict=True))
        | dict(zip(given["queries"], arrays["queries"].tolist(), strict=True)),
    )


def routes(pairs: Pairs, *, none: bool = False) -> list[Any]:
    """One route a task; with ``none`` the out-of-scope examples are one as well."""
    texts: dict[str, list[str]] = {}
    for text, task in pairs:
        if none or task != NONE:
            texts.setdefault(task, []).append(text)
    return [Route(name=task, utterances=own) for task, own in texts.items()]


def labelled(pairs: Pairs) -> tuple[list[str], list[str | None]]:
    """Queries and the routes they should take, as both lines' ``fit`` wants them."""
    return [text for text, _ in pairs], [None if task == NONE else task for _, task in pairs]


# The 1.x line: fit() learns how sure to be; from when to answer is for its user to say.


def newer(case: Case) -> list[dict[str, Any]]:
    encoder = Known(name="known", vectors=case.vectors)

    def router(pairs: Pairs, **options: Any) -> Any:
        none = options.pop("none", False)
        return semantic_router.IndexedRouter(encoder, routes(pairs, none=none), **options)

    start = time.perf_counter()
    learner = router(case.kept)
    learner.fit(*labelled(case.held))
    threshold = asyncio.run(best_threshold(learner, case.held))
    fit_s = time.perf_counter() - start
    fitted = {"calibrator": learner.calibrator, "confidence_threshold": threshold}
    settings: dict[str, dict[str, Any]] = {
        "as it comes": {},
        f"fitted, from {threshold:.2f}": fitted,
    }
    if any(task == NONE for _, task in case.utterances):
        settings["none as a route"] = {"none": True}
    rows = []
    for name, options in settings.items():
        start = time.perf_counter()
        built = router(case.utterances, **options)
        seconds = time.perf_counter() - start + (fit_s if options is fitted else 0)
        rows.append({"setting": name, "build_s": seconds, **asyncio.run(asked(built, case))})
    return rows


async def best_threshold(router: Any, held: Pairs) -> float:
    """The confidence from which to answer, so that most of ``held`` come out right."""
    choices = [await router.acall(text) for text, _ in held]
    confidences = np.array([choice.confidence for choice in choices])
    hit = np.array([choice.name == task for choice, (_, task) in zip(choices, held, strict=True)])
    outside = np.array([task == NONE for _, task in held])

    def right(threshold: float) -> int:
        answered = confidences >= threshold
        return int((answered & hit).sum() + (~answered & outside).sum())

    return float(max(np.unique(confidences), key=right))


async def asked(router: Any, case: Case) -> dict[str, Any]:
    """Its answers, and the ranking behind them; awaited, as a server would."""
    said, best, scores, times = [], [], [], []
    await router.acall(case.queries[0])
    for query in case.queries:
        start = time.perf_counter()
        choice = await router.acall(query)
        times.append((time.perf_counter() - start) * 1000)
        said.append(choice.name or NONE)
        ranked = await router.acall(query, limit=None, threshold=-1.0)
        first = next(choice for choice in ranked if choice.name != NONE)
        best.append(first.name)
        scores.append(first.confidence)
    return {"said": said, "best": best, "scores": scores, "decide_ms": statistics.median(times)}


# The 0.x line: fit() searches thresholds at random; the threshold as it comes is its encoder's.


def older(case: Case) -> list[dict[str, Any]]:
    def router(pairs: Pairs) -> Any:
        index = LocalIndex()
        index.dimensions = len(next(iter(case.vectors.values())))
        encoder = Known(name="known", vectors=case.vectors, score_threshold=ENCODERS_THRESHOLD)
        return semantic_router.SemanticRouter(
            encoder=encoder, routes=routes(pairs), index=index, auto_sync="local"
        )

    start = time.perf_counter()
    built = router(case.utterances)
    build_s = time.perf_counter() - start
    given = asked_older(built, case)
    start = time.perf_counter()
    thresholds, iterations = searched(router(case.kept), case.held)
    fit_s = time.perf_counter() - start
    for name, threshold in thresholds.items():
        built.set_threshold(threshold, name)
    fitted = asked_older(built, case)
    built.set_threshold(0.0)
    always = asked_older(built, case)
    ranking = {"best": always["said"], "scores": always["scores"]}
    return [
        {"setting": name, "build_s": seconds, **answers, **ranking}
        for name, seconds, answers in (
            (f"its encoder's {ENCODERS_THRESHOLD}", build_s, given),
            (f"fitted, {iterations} rounds", build_s + fit_s, fitted),
            ("threshold 0", build_s, always),
        )
    ]


def searched(router: Any, held: Pairs) -> tuple[dict[str, float], int]:
    """The thresholds that ``fit`` finds within the bounds, and in how many rounds."""
    random.seed(0)
    queries, right = labelled(random.sample(held, min(len(held), FIT_QUERIES)))
    start = time.perf_counter()
    router.evaluate(queries, right)
    round_s = time.perf_counter() - start
    iterations = max(1, min(FIT_ITERATIONS, int(FIT_SECONDS / round_s)))
    router.fit(queries, right, max_iter=iterations)
    return router.get_thresholds(), iterations


def asked_older(router: Any, case: Case) -> dict[str, Any]:
    said, scores, times = [], [], []
    router(case.queries[0])
    for query in case.queries:
        start = time.perf_counter()
        choice = router(query)
        times.append((time.perf_counter() - start) * 1000)
        said.append(choice.name or NONE)
        scores.append(choice.similarity_score)
    return {"said": said, "scores": scores, "decide_ms": statistics.median(times)}


def main() -> None:
    case = read_case(Path(sys.argv[1]), Path(sys.argv[2]))
    rows = newer(case) if hasattr(semantic_router, "IndexedRouter") else older(case)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
