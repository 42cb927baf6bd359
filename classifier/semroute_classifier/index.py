"""Nearest neighbours by cosine similarity. The one place that knows FAISS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from semroute_classifier.encoders import Vectors


# A search is microseconds of work; a pool of threads for it would only disturb the encoder.
faiss.omp_set_num_threads(1)


class Index:
    """An exact index over unit-length vectors, so that the inner product is the cosine."""

    def __init__(self, vectors: Vectors) -> None:
        """Index ``vectors``, shape (n, dimension), n at least 1."""
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` nearest rows of each query, nearest first.

        Returns similarities and row numbers, both of shape (queries, min(k, n)).
        """
        similarities, rows = self._index.search(
            np.ascontiguousarray(queries, dtype=np.float32), min(k, len(self))
        )
        return similarities, rows
