"""How much faster than its library is an encoder's engine, one query at a time, on this machine?

The bundled encoder, in int8, in float32, and as sentence-transformers' own ``encode`` runs it, with
the same number of threads. They take turns, one round of all queries each, so whatever else the
machine does meets all alike and each finds the processor's caches as it left them. Queries are the
validation set's of two lengths. Writes benchmarks/results/engines.json.

With --true-size a random XLM-RoBERTa large of BGE-M3's true size is made, exported and timed
instead: about 12 GB of memory, 6 GB of disk and some minutes; engines_true_size.json.

    python benchmarks/engines.py [--queries 60] [--true-size]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.encoders.building import build_engine
from semroute_classifier.encoders.engine import OnnxEncoder, read_manifest
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    bundled_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
LENGTHS = {"short": (9, 16), "medium": (40, 60)}
"""Tokens, special ones among them."""
_LOAD = """
import sys, time
from pathlib import Path
from semroute_classifier.encoders.engine import OnnxEncoder
start = time.perf_counter()
encoder = OnnxEncoder("it", Path(sys.argv[1]), sys.argv[2])
encoder.encode(["write a Python script"])
seconds = time.perf_counter() - start
rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in rollup if line.endswith("kB")}
private = sizes["Private_Clean"] + sizes["Private_Dirty"]
print(f"{seconds:.2f} {sizes['Rss']} {private}")
"""


def queries(encoder: OnnxEncoder, count: int) -> dict[str, list[str]]:
    """At most ``count`` of the validation set's of each length."""
    lines = (ROOT / "tests/data/validation.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["query"] for line in lines]
    tokens = {text: len(encoder.spans(text)) + 2 for text in texts}
    return {
        name: [text for text in texts if least <= tokens[text] <= most][:count]
        for name, (least, most) in LENGTHS.items()
    }


def in_turns(
    contestants: dict[str, Callable[[list[str]], Any]], texts: list[str], rounds: int
) -> dict[str, float]:
    """The median milliseconds of each contestant."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name, encode in list(contestants.items()) * rounds:
        for text in texts:
            start = time.perf_counter()
            encode([text])
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: round(statistics.median(all_of), 2) for name, all_of in times.items()}


def compare(model: Path, folder: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each number of threads and each length."""
    import torch
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(model), local_files_only=True, device="cpu")
    library.eval()
    kept = read_manifest(folder)["engines"]
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        engines = {p: OnnxEncoder("it", folder, p, threads) for p in kept}
        contestants: dict[str, Callable[[list[str]], Any]] = {
            name: engine.encode for name, engine in engines.items()
        }
        contestants["sentence_transformers"] = lambda texts: library.encode(
            texts, normalize_embeddings=True, show_progress_bar=False
        )
        for length, texts in queries(engines["int8"], count).items():
            in_turns(contestants, texts[:3], 1)  # the first passes of each are slow
            medians = in_turns(contestants, texts, rounds)
            faster = round(medians["sentence_transformers"] / medians["int8"], 1)
            tokens = statistics.median(len(engines["int8"].spans(text)) + 2 for text in texts)
            rows.append(
                {
                    "threads": threads,
                    "length": length,
                    "queries": len(texts),
                    "tokens": tokens,
                    "median_ms": medians,
                    "int8_times_faster_than_library": faster,
                }
            )
            print(json.dumps(rows[-1]))
    return rows


def loaded(folder: Path) -> dict[str, Any]:
    """Seconds to load and answer once in a new process, and its memory in MB, for each engine."""
    figures = {}
    for precision in read_manifest(folder)["engines"]:
        command = [sys.executable, "-c", _LOAD, str(folder), precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, rss, private = done.stdout.split()
        figures[precision] = {
            "load_s": float(seconds),
            "rss_mb": int(rss),
            "private_mb": int(private),
        }
    return figures


def make_large(root: Path) -> Path:
    """A random model of BGE-M3's size; its tokenizer is the bundled encoder's."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=250_002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        pad_token_id=0,
    )
    XLMRobertaModel(config).save_pretrained(root / "transformer")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(bundled_folder() / name, root / "transformer" / name)
    transformer = Transformer(str(root / "transformer"), max_seq_length=8192)
    modules = [transformer, Pooling(1024, pooling_mode="cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "model"))
    shutil.rmtree(root / "transformer")
    return root / "model"


def measure(root: Path, count: int, *, true_size: bool) -> dict[str, Any]:
    model = make_large(root) if true_size else bundled_folder()
    start = time.perf_counter()
    folder = build_engine(SentenceTransformerEncoder("it", model), root / "home")
    build_s = round(time.perf_counter() - start, 1)
    manifest = read_manifest(folder)
    print(json.dumps({name: manifest[name] for name in ("seconds", "files", "cosines")}, indent=1))
    return {
        "model": "random, of BGE-M3's size" if true_size else "bundled",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "build_s": build_s,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **{name: manifest[name] for name in ("seconds", "files", "cosines")},
        "loaded": loaded(folder),
        "rows": compare(model, folder, count, rounds=2 if true_size else 9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Engines against their library.")
    parser.add_argument("--queries", type=int, default=60, help="of each length")
    parser.add_argument("--true-size", action="store_true", help="a random model of BGE-M3's size")
    parser.add_argument("--folder", default=None, help="where the models are made and removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        figures = measure(Path(root), options.queries, true_size=options.true_size)
    name = "engines_true_size" if options.true_size else "engines"
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
