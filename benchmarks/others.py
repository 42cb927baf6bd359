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

from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.evaluation import judge_all, load_examples, score
from semroute_classifier.utterances import NONE, Utterance, UtteranceSet, load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from semroute_classifier.encoders import Encoder, States, Vectors
    from semroute_classifier.evaluation import Example

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-others"
WORKER = ROOT / "benchmarks/others_worker.py"
VERSIONS = ("1.1.1", "0.3.3")
"""Of semantic-router: the current line, and the one before, which has other thresholds."""
INSTALL_SECONDS, ASK_SECONDS = 600, 900
HELD = 0.2
"""The share of each task's utterances that semantic-router's own ``fit`` is given."""
COLUMNS = ("accuracy", "coverage", "selective", "abstain", "auroc", "right", "decide_ms", "build_s")


@dataclass(frozen=True, slots=True)
class Case:
    """What is learned from and what is asked."""

    name: str
    utterances: UtteranceSet
    examples: list[Example]


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


def shipped() -> Iterator[Case]:
    utterances = load_utterances(ROOT / "utterances")
    for name in ("validation", "heldout"):
        yield Case(f"shipped, {name}", utterances, load_examples(ROOT / f"tests/data/{name}.jsonl"))


def clinc150(folder: Path) -> Case:
    names = ("train.jsonl", "out_of_scope_train.jsonl")  # tasks first, as from files
    examples = [example for name in names for example in load_examples(folder / name)]
    utterances = UtteranceSet(tuple(Utterance(e.query, e.task) for e in examples))
    return Case("CLINC150, validation", utterances, load_examples(folder / "validation.jsonl"))


def figures(
    examples: Sequence[Example], said: Sequence[str], best: Sequence[str], scores: Sequence[float]
) -> dict[str, float]:
    """What all routers are judged by, from the task each said, its best task and its sureness."""
    right = np.array([example.task for example in examples])
    inside = right != NONE
    answered = inside & (np.array(said) != NONE)
    return {
        "accuracy": float((np.array(best) == right)[inside].mean()),
        "coverage": float(answered.sum() / inside.sum()),
        "selective": float((np.array(said) == right)[answered].mean()) if answered.any() else 0.0,
        "abstain": float((np.array(said) == NONE)[~inside].mean()),
        "auroc": float(roc_auc_score(inside, scores)),
        "right": float((np.array(said) == right).mean()),
    }


def ours(case: Case, encoder: Encoder) -> dict[str, Any]:
    """semroute's row. Everything was embedded before, so no time holds the encoder."""
    judge_all(Classifier.build(case.utterances, encoder), case.examples)
    start = time.perf_counter()
    classifier = Classifier.build(case.utterances, encoder)
    build_s = time.perf_counter() - start
    judged = judge_all(classifier, case.examples)
    said, best = [j.said for j in judged], [j.verdict.best_task for j in judged]
    return {
        "router": "semroute",
        "setting": "as it comes",
        **figures(case.examples, said, best, [score(j) for j in judged]),
        "decide_ms": statistics.median(j.milliseconds for j in judged),
        "build_s": build_s,
    }


def theirs(case: Case, encoder: Encoder, version: str) -> list[dict[str, Any]]:
    """semantic-router's rows, one a setting; none where a step fails or takes too long."""
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
    router = {"router": f"semantic-router {version}"}
    return [router | judged_row(case, row) for row in json.loads(printed)]


def run(command: list[str], seconds: float) -> str:
    """What ``command`` prints; raises ``SubprocessError`` where it fails or takes longer."""
    quiet = {"SEMANTIC_ROUTER_LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=os.environ | quiet, capture_output=True, timeout=seconds, check=True
    )
    return done.stdout.decode()


def judged_row(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    said, best, scores = (row.pop(key) for key in ("said", "best", "scores"))
    return row | figures(case.examples, said, best, scores)


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


def compare(case: Case, encoder: Encoder) -> list[dict[str, Any]]:
    say(f"{case.name}: semroute, {len(case.utterances.utterances)} utterances ...")
    rows = [ours(case, encoder)]
    for version in VERSIONS:
        say(f"{case.name}: semantic-router {version} ...")
        rows += theirs(case, encoder, version)
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows]


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
    print("Beside others: the same vectors, another router", flush=True)
    encoder = cast("Encoder", Remembering(load_encoder(options.encoder, default_home())))
    cases = [*shipped(), *([clinc150(options.clinc)] if options.clinc else [])]
    found = {}
    for case in cases:
        found[case.name] = compare(case, encoder)
        print("\n" + table(case.name, found[case.name]), flush=True)
    out = ROOT / "benchmarks/results/others.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"encoder": encoder.name, "cases": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
