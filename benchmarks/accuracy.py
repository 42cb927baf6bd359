"""How often is the classifier right: on the shipped validation set, and on a set of your own?

    python benchmarks/accuracy.py [--encoder bundled] [--train T.jsonl --validation V.jsonl]

Without files: tests/data/validation.jsonl against the shipped utterances. With them: utterances
are made from T (``query`` and ``task`` a line, ``none`` is out of scope), and V is measured.
Beside the verdict stands the rule of most routers, the mean similarity of the five nearest
utterances of each task, in the same run. Writes benchmarks/results/accuracy.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from semroute_classifier.artifacts import load_or_build
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import Encoder, load_encoder, vectors_of
from semroute_classifier.evaluation import Example, evaluate, load_examples
from semroute_classifier.utterances import NONE, Utterance, UtteranceSet, load_utterances

ROOT = Path(__file__).parents[1]
NEAREST = 5


def mean_of_nearest(
    utterances: UtteranceSet, encoder: Encoder, vectors: Any, examples: list[Example]
) -> float:
    """In-scope accuracy of the task whose ``NEAREST`` utterances are nearest on average."""
    tasks = utterances.tasks
    of_task = np.array([u.task for u in utterances.utterances])
    right = []
    for example in (e for e in examples if e.in_scope):
        similarities = vectors @ vectors_of(encoder.encode([example.query]), encoder)[0]
        means = [np.sort(similarities[of_task == task])[-NEAREST:].mean() for task in tasks]
        right.append(tasks[int(np.argmax(means))] == example.task)
    return round(float(np.mean(right)), 4)


def measure(utterances: UtteranceSet, encoder: Encoder, examples: list[Example]) -> dict[str, Any]:
    start = time.perf_counter()
    artifact = load_or_build(utterances, encoder, None)
    classifier = Classifier(utterances, encoder, artifact)
    seconds = round(time.perf_counter() - start, 1)
    figures = evaluate(classifier, examples)
    figures.pop("confusion")
    rule = mean_of_nearest(utterances, encoder, artifact.vectors, examples)
    return {
        "utterances": len(utterances.utterances),
        "build_seconds": seconds,
        **figures,
        f"mean_of_{NEAREST}_accuracy": rule,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--train", type=Path, action="append", help="may be given several times")
    parser.add_argument("--validation", type=Path, default=ROOT / "tests/data/validation.jsonl")
    options = parser.parse_args()
    if options.train:
        examples = [e for path in options.train for e in load_examples(path)]
        in_scope_first = sorted(examples, key=lambda e: e.task == NONE)
        utterances = UtteranceSet(tuple(Utterance(e.query, e.task, e.tier) for e in in_scope_first))
    else:
        utterances = load_utterances(ROOT / "utterances")
    encoder = load_encoder(options.encoder)
    figures = measure(utterances, encoder, load_examples(options.validation))
    out = ROOT / "benchmarks/results/accuracy.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:<22} {value}")


if __name__ == "__main__":
    main()
