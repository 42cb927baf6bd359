"""``evaluate``: how good is the classifier on queries whose task is known?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.artifacts import load_or_build
from semroute_classifier.classifier import Classifier
from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import EncoderError, load_encoder
from semroute_classifier.evaluation import figures_of, judge_all, load_examples
from semroute_classifier.utterances import load_utterances
from semroute_service.cli import output
from semroute_service.cli.files import folder
from semroute_service.settings import default_home

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from semroute_classifier.evaluation import Judged

_FIGURES = {
    "accuracy": "best task right, in scope, abstention ignored",
    "lenient_accuracy": "the same, further acceptable tasks counted",
    "coverage": "in scope and matched",
    "selective_accuracy": "right among those matched",
    "abstain_precision": "out of scope among those defaulted",
    "abstain_recall": "defaulted among those out of scope",
    "auroc": "in scope against out of scope, by confidence",
    "tier_accuracy": "tier right, in scope",
    "tier_macro_f1": "the tiers' mean F1",
    "ece": "calibration error of the confidence; 0 is best",
    "static_share": "answered by the static encoder",
    "static_slip": "out of scope and matched by the static encoder",
}


def evaluate(options: argparse.Namespace) -> int:
    """Build a classifier, measure it, print the figures and, if wanted, write a report."""
    try:
        examples = load_examples(Path(options.file))
        utterances = load_utterances(folder("utterances", options.utterances))
        encoder = load_encoder(options.encoder, default_home())
        start = time.perf_counter()
        told = progress("embedding utterances")
        if options.cascade == "on":
            classifier = Classifier.build(utterances, encoder, None, told)
        else:  # the static encoder's artifact is not needed
            artifact = load_or_build(utterances, encoder, None, told)
            classifier = Classifier(utterances, encoder, artifact)
        build_seconds = round(time.perf_counter() - start, 2)
    except (ConfigError, EncoderError) as error:
        return output.fail(str(error))
    cascade = options.cascade == "on"
    judged = judge_all(classifier, examples, cascade=cascade, progress=progress("judging"))
    figures = {**figures_of(judged, classifier), "build_seconds": build_seconds}
    if options.report:
        try:
            _write_report(Path(options.report), classifier, judged, figures)
        except OSError as error:
            return output.fail(f"{options.report}: {error.strerror}")
    if options.json:
        output.print_json(figures)
    else:
        _print(figures, len(utterances.utterances))
    return 0


def _write_report(
    path: Path,
    classifier: Classifier,
    judged: list[Judged],
    figures: dict[str, Any],
) -> None:
    from semroute_classifier.report import report

    page = report(classifier, classifier.vectors, judged, figures, progress("drawing"))
    # Half a surrogate pair, which UTF-8 cannot hold, becomes its escape.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    print(f"the report: {path}", file=sys.stderr)


def progress(what: str) -> Callable[[int, int], None]:
    """Tells a person at a terminal how much of ``what`` is done; a pipeline hears nothing."""

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{what}: {done} of {total}", end=end, file=sys.stderr, flush=True)

    return tell


def _print(figures: dict[str, Any], utterances: int) -> None:
    print(f"{figures['n']} queries, {utterances} utterances, encoder {figures['encoder']}\n")
    for name, meaning in _FIGURES.items():
        value = figures[name]
        print(f"{name:<20}{'-' if value is None else f'{value:.3f}':>7}   {meaning}")
    latency = figures["latency_ms"]
    print(f"{'latency':<20}{latency['p50']:>7.1f}   ms at p50, {latency['p95']:.1f} at p95")
    print(f"{'build':<20}{figures['build_seconds']:>7.1f}   s\n")
    _print_confusion(figures["confusion"])


def _print_confusion(confusion: dict[str, dict[str, int]]) -> None:
    """Rows are right, columns are said; a task is known by its number."""
    labels = sorted(confusion.keys() | {said for row in confusion.values() for said in row})
    if len(labels) > 24:
        return
    width = max(len(label) for label in labels)
    print(" " * (width + 5) + "".join(f"{i:>5}" for i in range(1, len(labels) + 1)))
    for i, label in enumerate(labels, 1):
        row = confusion.get(label, {})
        cells = "".join(f"{row.get(other) or '.':>5}" for other in labels)
        print(f"{i:>3}. {label:<{width}}{cells}")
    print("\nrows: the right task; columns: what was said; none: sent to the default row")
