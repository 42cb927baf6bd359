"""Nearest neighbours by cosine similarity. The one place that knows FAISS.

Every vector has a code. A search takes more candidates by their codes than it was asked for, and
ranks these by their vectors; so the similarities are exact, and only which rows are candidates
rests on the codes. There are three ways to find candidates, for three sizes:

- bytes: the codes are the values in a byte each, and all are scanned
- product: half a byte for every four values (product quantisation), scanned in registers
- graph: an HNSW graph over the bytes, which is all that does not grow with the index

Figures: benchmarks/index.py. The same vectors always give the same answers: product and graph are
made by one thread from a fixed seed, in the rows' order, and are kept, so that another release of
FAISS, which may make others, changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Vectors

    Progress = Callable[[int, int], None]

PRODUCT_FROM, GRAPH_FROM = 6_000, 150_000
"""Vectors from which ``build`` makes product codes, and a graph. Measured, k of 10, 384 values, one
query at a time on one thread, in ms for bytes, product, graph: at 6,000 vectors 0.23, 0.15, 0.35;
at 15,000 0.61, 0.24, 0.70; at 100,000 3.7, 0.57, 1.1; at 200,000 7.5, 0.98, 1.0. There product
codes find 98 of 100, below that 99 or more."""
VALUES = 4
"""Of a vector that share half a byte."""
SPARE = 48
"""Candidates beyond those asked for. 16 were enough to find all of the nearest 10 and 80 at every
size up to 100,000; 48 lose hardly any where one value of each vector outweighs all others."""
SPARE_OF_PRODUCT = 192
"""The same for product codes, which are coarser."""
LINKS = 32
EFFORT_TO_BUILD = 200
EFFORT_TO_SEARCH = 192
"""M, efConstruction and efSearch, the least that find 99 in 100 of the nearest 80 of 100,000, and
more of the nearest 10. With 16 links and 100 it takes an efSearch of 384, and a fifth more time.
"""

_untyped: Any = faiss  # its stubs lack what HNSW takes
_CODE = faiss.ScalarQuantizer.QT_8bit_direct_signed
_LARGEST = 127
_CHUNK = 2_000
_KEPT = "index.faiss"
_DIGEST = "index.sha256"


class Index:
    """An index over unit-length vectors, so that the inner product is the cosine.

    Immutable once made; any number of threads may search it.
    """

    def __init__(self, vectors: Vectors, _made: Any = None) -> None:
        """Index ``vectors``, shape (n, dimension), n at least 1, by bytes.

        They are kept, not copied, where they are contiguous; the codes are a quarter of their size.
        """
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._codes = _made
        if _made is None:
            width = vectors.shape[1]
            self._codes = faiss.IndexScalarQuantizer(width, _CODE, faiss.METRIC_INNER_PRODUCT)
            _add(self._codes, self._vectors)

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        progress: Progress | None = None,
        *,
        product_from: int = PRODUCT_FROM,
        graph_from: int = GRAPH_FROM,
    ) -> Index:
        """Index ``vectors``, each way from so many on; product codes take a second or two, a graph
        up to minutes.

        ``progress`` is called with (done, total) vectors while a graph is built.
        """
        if len(vectors) >= graph_from:
            graph = _untyped.IndexHNSWSQ(vectors.shape[1], _CODE, LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = EFFORT_TO_BUILD
            _add(graph, vectors, progress)
            return cls(vectors, graph)
        if len(vectors) >= product_from and _has_product(vectors):
            return cls(vectors, _product_codes(vectors))
        return cls(vectors)

    def save(self, folder: Path) -> None:
        """Keep in ``folder`` what takes a while to make: product codes or the graph.

        Raises ``OSError`` where the folder cannot be written.
        """
        if isinstance(self._codes, faiss.IndexScalarQuantizer):
            return
        path = folder / _KEPT
        try:
            faiss.write_index(self._codes, str(path))
        except RuntimeError as error:  # what FAISS calls a full disk
            raise OSError(f"{path} could not be written: {error}") from error
        (folder / _DIGEST).write_text(_digest(path, self._vectors))

    @classmethod
    def load(cls, folder: Path, vectors: Vectors) -> Index | None:
        """The index over ``vectors`` that ``save`` kept; a graph is mapped, so workers share it.

        None where it must be built: what was kept is missing or damaged, or was made from other
        vectors or in another way.
        """
        path = folder / _KEPT
        if not path.exists():
            bounds = (GRAPH_FROM, PRODUCT_FROM) if _has_product(vectors) else (GRAPH_FROM,)
            return cls(vectors) if len(vectors) < min(bounds) else None
        try:
            # FAISS trusts the links that it reads; a damaged one would lead out of the memory.
            if (folder / _DIGEST).read_text() != _digest(path, vectors):
                return None
            return cls(vectors, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except (OSError, ValueError, RuntimeError):
            return None

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` nearest rows of each query, nearest first, the first of equals first.

        Returns similarities and row numbers, both of shape (queries, min(k, n)).
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self))
        similarities = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for i, candidates in enumerate(self._candidates(queries, k)):
            similarities[i], rows[i] = self._rank(queries[i], candidates[candidates >= 0], k)
        return similarities, rows

    def _candidates(self, queries: Vectors, k: int) -> NDArray[np.int64]:
        """Rows near each query by their codes, at least ``k`` of them; -1 stands for none."""
        # The count is the calling thread's own. A search is microseconds of work, and a pool of
        # threads for it would only disturb the encoder.
        faiss.omp_set_num_threads(1)
        index = self._codes
        if isinstance(index, faiss.IndexPQFastScan):
            near: NDArray[np.int64] = index.search(queries, min(k + SPARE_OF_PRODUCT, len(self)))[1]
            return near
        largest = np.abs(queries).max(axis=1, keepdims=True)
        codes = _codes(queries, np.maximum(largest, 1e-9))
        count = min(k + SPARE, len(self))
        if isinstance(index, faiss.IndexHNSW):
            effort = _untyped.SearchParametersHNSW(efSearch=max(EFFORT_TO_SEARCH, count))
            found: NDArray[np.int64] = index.search(codes, count, params=effort)[1]
            # Among many equal vectors the links may lead to too few.
            if (found[:, k - 1] >= 0).all():
                return found
            index = faiss.downcast_index(index.storage)
        scanned: NDArray[np.int64] = index.search(codes, count)[1]
        return scanned

    def _rank(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best ``k`` of ``rows`` by their vectors, and their similarities."""
        # einsum, because BLAS would start its threads for a product of this size, and two of
        # them on a busy machine wait milliseconds for each other.
        similarities = np.einsum("ij,j->i", self._vectors[rows], query)
        order = np.lexsort((rows, -similarities))[:k]
        return similarities[order], rows[order]


def _has_product(vectors: Vectors) -> bool:
    return bool(vectors.shape[1] % VALUES == 0)


def _product_codes(vectors: Vectors) -> Any:
    """Product codes of ``vectors``, learned from some thousands of them."""
    faiss.omp_set_num_threads(1)
    width = vectors.shape[1]
    made = faiss.IndexPQFastScan(width, width // VALUES, 4, faiss.METRIC_INNER_PRODUCT)
    with threadpool_limits(1, user_api="blas"):  # more threads may add in another order
        made.train(vectors)
    made.add(vectors)
    return made


def _codes(vectors: Vectors, largest: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """``vectors`` in whole numbers that a byte holds, where ``largest`` is their largest value.

    A scale changes no order, so queries and rows need not share it.
    """
    return np.asarray(np.rint(vectors * (_LARGEST / largest)), dtype=np.float32)


def _add(index: Any, vectors: Vectors, progress: Progress | None = None) -> None:
    """Add the codes of ``vectors``, in chunks, so that no second copy of them is ever made."""
    faiss.omp_set_num_threads(1)
    largest = float(max(vectors.max(), -vectors.min()))
    for start in range(0, len(vectors), _CHUNK):
        chunk = vectors[start : start + _CHUNK]
        index.add(_codes(chunk, largest))
        if progress:
            progress(start + len(chunk), len(vectors))


def _digest(kept: Path, vectors: Vectors) -> str:
    """Of the file that is kept, the vectors that it is of, and the way in which it was made."""
    made = f"{VALUES} {LINKS} {EFFORT_TO_BUILD} {vectors.dtype} {vectors.shape}"
    digest = hashlib.sha256(made.encode())
    digest.update(np.ascontiguousarray(vectors).data)
    with kept.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
