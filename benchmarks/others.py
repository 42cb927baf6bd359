"""How does semroute's verdict compare with aurelio's semantic-router on the same vectors?

    python benchmarks/others.py [--encoder bundled] [--clinc DIR]

semantic-router, of both its release lines, is installed into environments of its own in
.venv-others; semroute's encoder makes every vector for all of them, so that nothing but the router
differs. Learned from: the shipped utterances; asked: the validation and held-out sets. With
--clinc also CLINC150, from a folder with train.jsonl, out_of_scope_train.jsonl and
validation.jsonl. A decision's time holds no encoder. Prints a table and writes
benchmarks/results/others.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.evaluation import judge_all, load_examples, score
from semroute_classifier.utterances import NONE, Utterance, UtteranceSet, load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.encoders import Encoder, States, Vectors
    from semroute_classifier.evaluation import Example

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-others"
WORKER = ROOT / "benchmarks/others_worker.py"
VERSIONS = ("1.1.1", "0.3.3")
"""Of semantic-router: the current line, and the one before, which has other thresholds."""
INSTALL_SECONDS, ASK_SECONDS = 600, 900
THREADS = 1
"""Of linear algebra, for each: several get into each other's way where others use the machine."""
HELD = 0.2
"""The share of each task's utterances that semantic-router's own ``fit`` is given."""
COLUMNS = ("accuracy", "coverage", "selective", "abstain", "auroc", "right", "decide_ms", "build_s")


@dataclass(frozen=True, slots=True)
class Case:
    """What is learned from, and the sets that are asked."""

    name: str
    utterances: UtteranceSet
    sets: dict[str, list[Example]]

    @property
    def examples(self) -> list[Example]:
        """Those of every set, one after the other."""
        return [example for examples in self.sets.values() for example in examples]


class Remembering:
    """The encoder it wraps, which sees each text once; the second time is free."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, States] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Sequence[str]) -> States:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def shipped() -> Case:
    names = ("validation", "heldout")
    sets = {name: load_examples(ROOT / f"tests/data/{name}.jsonl") for name in names}
    return Case("shipped", load_utterances(ROOT / "utterances"), sets)


def clinc150(folder: Path) -> Case:
    names = ("train.jsonl", "out_of_scope_train.jsonl")  # tasks first, as from files
    examples = [example for name in names for example in load_examples(folder / name)]
    utterances = UtteranceSet(tuple(Utterance(e.query, e.task) for e in examples))
    return Case("CLINC150", utterances, {"validation": load_examples(folder / "validation.jsonl")})


@dataclass(frozen=True, slots=True)
class Answers:
    """What a router made of a case's examples, in order, and what that took."""

    router: str
    setting: str
    said: list[str]
    """The task it named; ``none`` where it named none."""
    best: list[str]
    """The task it would have named, had it had to."""
    scores: list[float]
    """How sure it was of this."""
    decide_ms: float
    build_s: float


def figures(answers: Answers, examples: Sequence[Example], rows: slice) -> dict[str, Any]:
    """What all routers are judged by; ``rows`` of the answers are those to ``examples``."""
    right = np.array([example.task for example in examples])
    said, best = np.array(answers.said[rows]), np.array(answers.best[rows])
    inside = right != NONE
    answered = inside & (said != NONE)
    found = {
        "accuracy": (best == right)[inside].mean(),
        "coverage": answered.sum() / inside.sum(),
        "selective": (said == right)[answered].mean() if answered.any() else 0.0,
        "abstain": (said == NONE)[~inside].mean(),
        "auroc": roc_auc_score(inside, answers.scores[rows]),
        "right": (said == right).mean(),
        "decide_ms": answers.decide_ms,
        "build_s": answers.build_s,
    }
    numbers = {name: round(float(value), 4) for name, value in found.items()}
    return {"router": answers.router, "setting": answers.setting, **numbers}


def ours(case: Case, encoder: Encoder) -> Answers:
    """semroute's. What is timed comes second, when no text is new to ``encoder``."""
    judge_all(Classifier.build(case.utterances, encoder), case.examples)
    with threadpool_limits(THREADS):
        start = time.perf_counter()
        classifier = Classifier.build(case.utterances, encoder)
        build_s = time.perf_counter() - start
        judged = judge_all(classifier, case.examples)
    return Answers(
        router="semroute",
        setting="as it comes",
        said=[j.said for j in judged],
        best=[j.verdict.best_task for j in judged],
        scores=[score(j) for j in judged],
        decide_ms=statistics.median(j.milliseconds for j in judged),
        build_s=build_s,
    )


def theirs(case: Case, encoder: Encoder, version: str) -> list[Answers]:
    """semantic-router's, one a setting; none where a step fails or takes too long."""
    try:
        python = installed(version)
        with tempfile.TemporaryDirectory() as folder:
            files = written(case, encoder, Path(folder))
            command = [str(python), str(WORKER), *map(str, files)]
            printed = run(command, ASK_SECONDS).splitlines()[-1]
    except subprocess.SubprocessError as error:
        reason = getattr(error, "stderr", None) or b""
        say(f"semantic-router {version} is left out: {error}\n{reason[-2000:].decode()}")
        return []
    return [Answers(f"semantic-router {version}", **row) for row in json.loads(printed)]


def run(command: list[str], seconds: float) -> str:
    """What ``command`` prints; raises ``SubprocessError`` where it fails or takes longer."""
    one_thread = {f"{library}_NUM_THREADS": str(THREADS) for library in ("OPENBLAS", "OMP", "MKL")}
    quiet = {"SEMANTIC_ROUTER_LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command,
        env=os.environ | one_thread | quiet,
        capture_output=True,
        timeout=seconds,
        check=True,
    )
    return done.stdout.decode()


def installed(version: str) -> Path:
    """The Python of this version's environment, made where it is not there."""
    folder = ENVIRONMENTS / version
    python, ready = folder / "bin/python", folder / ".ready"
    if not ready.exists():
        say(f"installing semantic-router {version} into {folder} ...")
        run([sys.executable, "-m", "venv", str(folder)], INSTALL_SECONDS)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        run([*pip, f"semantic-router=={version}"], INSTALL_SECONDS)
        ready.touch()
    return python


def written(case: Case, encoder: Encoder, folder: Path) -> tuple[Path, Path]:
    """The worker's files: texts with their tasks, and their vectors."""
    pairs = list(dict.fromkeys((u.text, u.task) for u in case.utterances.utterances))
    queries = [example.query for example in case.examples]
    tasks = [task for _, task in pairs]
    _, held = train_test_split(range(len(pairs)), test_size=HELD, stratify=tasks, random_state=0)
    texts = folder / "case.json"
    texts.write_text(json.dumps({"utterances": pairs, "held": sorted(held), "queries": queries}))
    vectors = folder / "vectors.npz"
    np.savez(
        vectors,
        utterances=embedded([text for text, _ in pairs], encoder),
        queries=embedded(queries, encoder),
    )
    return texts, vectors


def embedded(texts: list[str], encoder: Encoder) -> Vectors:
    """One text a pass, as a router meets them."""
    return np.concatenate([vectors_of(encoder.encode([text]), encoder) for text in texts])


def compare(case: Case, encoder: Encoder) -> dict[str, list[dict[str, Any]]]:
    """The rows of each set of ``case``."""
    say(f"{case.name}: semroute, {len(case.utterances.utterances)} utterances ...")
    answers = [ours(case, encoder)]
    for version in VERSIONS:
        say(f"{case.name}: semantic-router {version} ...")
        answers += theirs(case, encoder, version)
    found, start = {}, 0
    for name, examples in case.sets.items():
        rows = slice(start, start := start + len(examples))
        found[f"{case.name}, {name}"] = [figures(one, examples, rows) for one in answers]
    return found


def table(name: str, rows: list[dict[str, Any]]) -> str:
    lines = [f"{name:<22} {'setting':<20} " + " ".join(f"{column:>9}" for column in COLUMNS)]
    for row in rows:
        numbers = " ".join(f"{row[column]:>9.3f}" for column in COLUMNS)
        lines.append(f"{row['router']:<22} {row['setting']:<20} {numbers}")
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--clinc", type=Path, metavar="DIR", help="a folder that holds CLINC150")
    options = parser.parse_args()
    encoder = cast("Encoder", Remembering(load_encoder(options.encoder, default_home())))
    cases = [shipped(), *([clinc150(options.clinc)] if options.clinc else [])]
    found = {}
    for case in cases:
        for name, rows in compare(case, encoder).items():
            found[name] = rows
            print(table(name, rows) + "\n", flush=True)
    out = ROOT / "benchmarks/results/others.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"encoder": encoder.name, "sets": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
