"""How long does a search take, and what does it find?

Real vectors: the shipped utterances, and beyond them copies moved by gaussian noise to a cosine of
0.85 to their origin, on average. So near are two sentences that say the same in other words; the
nearest of the shipped utterances that say different things have about 0.5. Queries are the
validation set's. One query at a time, one thread, medians of all queries, in one run:

- exact: FAISS's IndexFlatIP, and the truth that recall is measured against
- bytes, product, graph: the ways of semroute_classifier.index, whose PRODUCT_FROM and GRAPH_FROM
  stand where the later ones begin to win
- other ways to scan 15,000 vectors, of 384 values and of 256

Writes benchmarks/results/index.json. About ten minutes on two cores.

    python benchmarks/index.py [--encoder bundled] [--largest 200000] [--cosine 0.85]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.encoders.base import unit_rows
from semroute_classifier.index import GRAPH_FROM, PRODUCT_FROM, Index
from semroute_classifier.utterances import load_utterances
from semroute_service.settings import default_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Encoder, Vectors

    Search = Callable[[Vectors, int], NDArray[np.int64]]

ROOT = Path(__file__).parents[1]
SIZES = (1_000, 3_000, 6_000, 15_000, 50_000, 100_000, 200_000)
OTHERS_AT = 15_000
QUANTISERS = ("QT_fp16", "QT_8bit")
COUNTS = (10, 80)


def embed(texts: list[str], encoder: Encoder, what: str) -> Vectors:
    parts = []
    for start in range(0, len(texts), 64):
        parts.append(vectors_of(encoder.encode(texts[start : start + 64]), encoder))
        say(f"{what}: {start + len(parts[-1])} of {len(texts)} embedded")
    return np.concatenate(parts)


def grown(vectors: Vectors, count: int, cosine: float) -> Vectors:
    """``count`` rows: ``vectors`` in random order, then noisy copies of them."""
    random = np.random.default_rng(0)
    origins = vectors[random.permutation(len(vectors))]
    copies = np.resize(origins, (count, origins.shape[1]))
    # Noise of length t at right angles leaves the cosine 1 / sqrt(1 + t * t).
    size = np.sqrt((1 / cosine**2 - 1) / origins.shape[1])
    noise = random.standard_normal(copies.shape, dtype=np.float32) * np.float32(size)
    noise[: len(origins)] = 0
    return unit_rows(copies + noise)


def median_ms(search: Search, queries: Vectors, k: int) -> float:
    times = []
    for i in range(len(queries)):
        start = time.perf_counter()
        search(queries[i : i + 1], k)
        times.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(times), 3)


def measured(search: Search, queries: Vectors, truth: dict[int, Any]) -> dict[str, float]:
    """Median milliseconds and recall for each count of neighbours."""
    figures = {}
    for k in COUNTS:
        found = search(queries, k)
        hits = [np.isin(t, f).mean() for t, f in zip(truth[k], found, strict=True)]
        figures[f"k{k}_ms"] = median_ms(search, queries, k)
        figures[f"k{k}_recall"] = round(float(np.mean(hits)), 4)
    return figures


def rows_of(index: Any) -> Search:
    return lambda queries, k: index.search(queries, k)[1]


def exact_search(vectors: Vectors) -> Search:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return rows_of(index)


def quantised(vectors: Vectors, name: str) -> Search:
    kind = getattr(faiss.ScalarQuantizer, name)
    index = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return rows_of(index)


def blas(vectors: Vectors) -> Search:
    """A product of matrix and vector, with as many threads as BLAS takes, and the largest of it."""

    def search(queries: Vectors, k: int) -> NDArray[np.int64]:
        return np.stack([np.argpartition(vectors @ -query, k)[:k] for query in queries])

    return search


def at_size(vectors: Vectors, queries: Vectors) -> dict[str, Any]:
    """Exact, and each of our ways over ``vectors``."""
    exact = exact_search(vectors)
    truth = {k: exact(queries, k) for k in COUNTS}
    figures: dict[str, Any] = {"exact": measured(exact, queries, truth)}
    for name, index_from in (("bytes", len(vectors) + 1), ("product", 0)):
        start = time.perf_counter()
        scan = Index.build(vectors, product_from=index_from, graph_from=len(vectors) + 1)
        made = time.perf_counter() - start
        figures[name] = measured(rows_of(scan), queries, truth) | {"build_s": round(made, 2)}
    start = time.perf_counter()
    graph = Index.build(
        vectors, lambda done, all: say(f"graph: {done} of {all} linked"), graph_from=0
    )
    made = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        start = time.perf_counter()
        loaded = Index.load(Path(folder), vectors)
        taken = time.perf_counter() - start
        assert loaded is not None
        figures["graph"] = measured(rows_of(loaded), queries, truth) | {
            "build_s": round(made, 2),
            "load_s": round(taken, 2),
            "kept_mb": round(size / 1e6, 1),
        }
    return figures


def other_ways(vectors: Vectors, queries: Vectors) -> dict[str, Any]:
    """Ways to scan ``vectors``, each without re-ranking but ours."""
    exact = exact_search(vectors)
    truth = {k: exact(queries, k) for k in COUNTS}
    ways = {"exact": exact, "bytes": rows_of(Index(vectors)), "blas": blas(vectors)}
    ways |= {name: quantised(vectors, name) for name in QUANTISERS}
    return {name: measured(way, queries, truth) for name, way in ways.items()}


def say(text: str) -> None:
    print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def show(title: str, figures: dict[str, Any]) -> None:
    say("")
    print("\r", end="", file=sys.stderr)
    for name, values in figures.items():
        print(f"{title:<16}{name:<10}", *(f"{n} {v:<8}" for n, v in values.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--cosine", type=float, default=0.85, help="of a copy to its origin")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, default_home())
    lines = (ROOT / "tests/data/validation.jsonl").read_text(encoding="utf-8").splitlines()
    utterances = [u.text for u in load_utterances(ROOT / "utterances").utterances]
    queries = embed([json.loads(line)["query"] for line in lines], encoder, "queries")
    vectors = grown(embed(utterances, encoder, "utterances"), options.largest, options.cosine)
    # Of the calling thread, for FAISS's own indexes; ours see to it themselves.
    faiss.omp_set_num_threads(1)
    figures: dict[str, Any] = {
        "encoder": encoder.name,
        "dimension": vectors.shape[1],
        "utterances": len(utterances),
        "queries": len(queries),
        "cosine_of_copies": options.cosine,
        "product_from": PRODUCT_FROM,
        "graph_from": GRAPH_FROM,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"FAISS {faiss.__version__}",
        "sizes": {},
        "other_ways": {},
    }
    for size in (s for s in SIZES if s <= options.largest):
        figures["sizes"][size] = at_size(vectors[:size], queries)
        show(f"{size:,}", figures["sizes"][size])
    for width in (384, 256):
        some, asked = unit_rows(vectors[:OTHERS_AT, :width]), unit_rows(queries[:, :width])
        figures["other_ways"][width] = other_ways(some, asked)
        show(f"{len(some):,} x {width}", figures["other_ways"][width])
    out = ROOT / "benchmarks/results/index.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
