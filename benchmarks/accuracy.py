"""How often is the classifier right: on the shipped sets, on CLINC150, and on sets of your own?

    python benchmarks/accuracy.py [--encoder bundled] [--clinc DIR]
    python benchmarks/accuracy.py --train T.jsonl [--train U.jsonl] --validation V.jsonl

The shipped utterances are asked tests/data/validation.jsonl and tests/data/heldout.jsonl. With
--clinc also CLINC150, from a folder with train.jsonl, out_of_scope_train.jsonl and
validation.jsonl: all utterances, and ten a task, the mean of three draws. With --train only what it
names is learned from (``query`` and ``task`` a line, ``none`` is out of scope). Beside the verdict
stands, from the same vectors, the rule of most routers: the mean similarity of the five nearest
utterances of each task. Writes benchmarks/results/accuracy.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.evaluation import Example, evaluate, load_examples
from semroute_classifier.utterances import NONE, Utterance, UtteranceSet, load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.encoders import Encoder, Vectors

ROOT = Path(__file__).parents[1]
NEAREST = 5
FEW, SEEDS = 10, (0, 1, 2)
_BATCH = 32
FIGURES = (
    "utterances",
    "n",
    "accuracy",
    "lenient_accuracy",
    "tier_accuracy",
    "auroc",
    "ece",
    "coverage",
    "selective_accuracy",
    "abstain_recall",
    "build_seconds",
    f"mean_of_{NEAREST}_accuracy",
)
"""Those printed; the file holds all."""


def embed(texts: Sequence[str], encoder: Encoder) -> Vectors:
    """Vectors of ``texts``, shape (texts, dimension)."""
    parts = [encoder.encode(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    return vectors_of(np.concatenate(parts), encoder)


def mean_of_nearest(
    utterances: UtteranceSet, encoder: Encoder, examples: Sequence[Example]
) -> float:
    """In-scope accuracy of the task whose ``NEAREST`` utterances are nearest on average."""
    learned = [u for u in utterances.utterances if u.task != NONE]
    inside = [example for example in examples if example.in_scope]
    vectors = embed([u.text for u in learned], encoder)
    similarities = embed([e.query for e in inside], encoder) @ vectors.T
    of_task = np.array([u.task for u in learned])
    own = (similarities[:, of_task == task] for task in utterances.tasks)
    means = [np.sort(block, axis=1)[:, -NEAREST:].mean(axis=1) for block in own]
    best = np.array(utterances.tasks)[np.argmax(means, axis=0)]
    return round(float((best == [e.task for e in inside]).mean()), 4)


def measure(
    name: str, utterances: UtteranceSet, encoder: Encoder, sets: dict[str, list[Example]]
) -> dict[str, dict[str, Any]]:
    """The figures of each of ``sets``; the classifier is built once, from nothing kept."""
    say(f"{name}: building from {len(utterances.utterances)} utterances ...")
    start = time.perf_counter()
    classifier = Classifier.build(utterances, encoder)
    seconds = round(time.perf_counter() - start, 1)
    found = {}
    for asked, examples in sets.items():
        say(f"{name}: asking {len(examples)} queries of {asked} ...")
        figures = evaluate(classifier, examples)
        figures.pop("confusion")
        figures["utterances"] = len(utterances.utterances)
        figures["build_seconds"] = seconds
        say(f"{name}: the mean of the nearest {NEAREST} on {asked} ...")
        figures[f"mean_of_{NEAREST}_accuracy"] = mean_of_nearest(utterances, encoder, examples)
        found[asked] = figures
    return found


def shipped(encoder: Encoder) -> dict[str, dict[str, Any]]:
    names = ("validation", "heldout")
    sets = {name: load_examples(ROOT / f"tests/data/{name}.jsonl") for name in names}
    return measure("shipped", load_utterances(ROOT / "utterances"), encoder, sets)


def clinc150(folder: Path, encoder: Encoder) -> dict[str, dict[str, Any]]:
    """All utterances, and ``FEW`` a task and out of scope, for each seed and on average."""
    learned = read(folder / "train.jsonl", folder / "out_of_scope_train.jsonl")
    asked = {"validation": load_examples(folder / "validation.jsonl")}
    draws = [
        measure(f"CLINC150, draw {seed}", drawn(learned, seed), encoder, asked)["validation"]
        for seed in SEEDS
    ]
    return {
        "clinc150": measure("CLINC150", learned, encoder, asked)["validation"],
        f"clinc150_{FEW}": {name: mean([draw.get(name) for draw in draws]) for name in FIGURES}
        | {"draws": draws},
    }


def read(*paths: Path) -> UtteranceSet:
    """An utterance set from files of examples, tasks first."""
    examples = [example for path in paths for example in load_examples(path)]
    in_scope_first = sorted(examples, key=lambda e: not e.in_scope)
    return UtteranceSet(tuple(Utterance(e.query, e.task, e.tier) for e in in_scope_first))


def drawn(utterances: UtteranceSet, seed: int) -> UtteranceSet:
    """``FEW`` utterances of each label, in their order."""
    generator = random.Random(seed)
    rows: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances.utterances):
        rows.setdefault(utterance.task, []).append(i)
    chosen = sorted(i for own in rows.values() for i in generator.sample(own, min(FEW, len(own))))
    return UtteranceSet(tuple(utterances.utterances[i] for i in chosen))


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.mean(known), 4) if known else None


def table(found: dict[str, dict[str, Any]]) -> str:
    """A row for each figure, a column for each set."""
    width = max(12, *map(len, found)) + 2
    lines = [" " * 20 + "".join(f"{name:>{width}}" for name in found)]
    for figure in FIGURES:
        cells = ("-" if f[figure] is None else f"{f[figure]:,}" for f in found.values())
        lines.append(f"{figure:<20}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--clinc", type=Path, metavar="DIR", help="a folder that holds CLINC150")
    parser.add_argument("--train", type=Path, action="append", help="may be given several times")
    parser.add_argument("--validation", type=Path, help="what is asked after --train")
    options = parser.parse_args()
    if bool(options.train) != bool(options.validation):
        parser.error("--train and --validation belong together")
    encoder = load_encoder(options.encoder, default_home())
    if options.train:
        asked = {"validation": load_examples(options.validation)}
        found = measure("own", read(*options.train), encoder, asked)
    else:
        found = shipped(encoder)
    if options.clinc:
        found |= clinc150(options.clinc, encoder)
    out = ROOT / "benchmarks/results/accuracy.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"encoder": encoder.name, "sets": found}, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
