"""``explain``: what the classifier makes of one query, and on what evidence. No server needed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from semroute_classifier.classifier import Basis, Classifier
from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import EncoderError, load_encoder
from semroute_classifier.utterances import NONE, load_utterances
from semroute_service.cli import output
from semroute_service.cli.evaluate import progress
from semroute_service.cli.files import folder
from semroute_service.settings import default_home

if TYPE_CHECKING:
    import argparse

    from semroute_classifier.classifier import Classification

_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"
_EVIDENCE = 8
_ODDS = 12


def explain(options: argparse.Namespace) -> int:
    """Classify one query and print the verdict with its evidence."""
    query = sys.stdin.read() if options.query == "-" else options.query
    if not query.strip():
        return output.fail("give a query that is not empty", status=2)
    start = time.perf_counter()
    try:
        utterances = load_utterances(folder("utterances", options.utterances))
        encoder = load_encoder(options.encoder, default_home())
        told = progress("embedding utterances")
        classifier = Classifier.build(utterances, encoder, default_home(), told)
    except (ConfigError, EncoderError) as error:
        return output.fail(str(error))
    ready = time.perf_counter() - start
    classifier.classify([query])  # the first call pays for what is lazy
    start = time.perf_counter()
    verdict = classifier.classify([query], _EVIDENCE)[0]
    took = time.perf_counter() - start
    if options.json:
        output.print_json(_as_dict(query, verdict, classifier, took, ready))
    else:
        _print(verdict, classifier, took, ready)
    return 0


def _as_dict(
    query: str, verdict: Classification, classifier: Classifier, took: float, ready: float
) -> dict[str, Any]:
    return {
        "query": query,
        "task": verdict.task,
        "tier": verdict.tier.word if verdict.tier else None,
        "matched": verdict.basis is Basis.MATCHED,
        "why": _why(verdict, classifier),
        "confidence": round(verdict.confidence, 4),
        "margin": round(verdict.margin, 4),
        "best_task": verdict.best_task,
        "best_tier": verdict.best_tier.word if verdict.best_tier else None,
        "runner_up": verdict.runner_up,
        "odds": {label: round(odds, 4) for label, odds in verdict.odds},
        "threshold": round(classifier.threshold, 4),
        "least_similarity": round(classifier.least_similarity, 4),
        "stage": verdict.stage.value,
        "cut": verdict.cut,
        "matches": [
            {
                "similarity": round(match.similarity, 4),
                "task": match.utterance.task,
                "tier": match.utterance.tier.word if match.utterance.tier else None,
                "utterance": match.utterance.text,
                "line": match.utterance.line or None,
            }
            for match in verdict.matches
        ],
        "encoder": classifier.encoder.name,
        "utterances_revision": classifier.utterances.revision,
        "elapsed_ms": round(took * 1000, 2),
        "ready_seconds": round(ready, 2),
    }


def _print(verdict: Classification, classifier: Classifier, took: float, ready: float) -> None:
    tier = verdict.best_tier.word if verdict.best_tier else "-"
    defaulted = f"none of them; the best would be {verdict.best_task}"
    lines = [
        ("task", verdict.task or defaulted),
        ("tier", tier if verdict.task else f"-; it would be {tier}"),
        ("confidence", f"{verdict.confidence:.2f}, margin {verdict.margin:.2f}"),
        ("read", "its head and tail, because it is long" if verdict.cut else "whole"),
        ("basis", f"{verdict.basis.value}: {_why(verdict, classifier)}"),
        ("encoder", f"{classifier.encoder.name} (utterances {classifier.utterances.revision})"),
        ("took", f"{took * 1000:.1f} ms, once it was ready after {ready:.1f} s"),
    ]
    for name, words in lines:
        print(f"{name:<12}{words}")
    print("\nodds")
    width = max(len(label) for label, _ in verdict.odds)
    for label, share in verdict.odds[:_ODDS]:
        print(f"{label:<{width}}  {share:>6.1%}  {_bar(share)}".rstrip())
    print("\nnearest utterances")
    rows = [
        [
            f"{match.similarity:.2f}",
            match.utterance.task,
            match.utterance.tier.word if match.utterance.tier else "-",
            match.utterance.text,
        ]
        for match in verdict.matches
    ]
    output.print_table(["cosine", "task", "tier", "utterance"], rows)


def _why(verdict: Classification, classifier: Classifier) -> str:
    """Why the query was matched or defaulted, as a sentence."""
    nearest, least = verdict.matches[0].similarity, classifier.least_similarity
    if nearest < least:
        return f"the nearest utterance, at {nearest:.2f}, is not as near as {least:.2f}"
    if verdict.basis is Basis.MATCHED:
        return f"{verdict.best_task} is likelier than out of scope, and sure enough"
    if verdict.odds[0][0] == NONE:
        return "the out-of-scope examples outweigh every task"
    return f"a confidence of {verdict.confidence:.2f} is not enough"


def _bar(share: float) -> str:
    """A bar to an eighth of a character."""
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
