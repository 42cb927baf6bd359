"""Utterances and queries as points of a plane, so that a person sees which tasks lie close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.manifold import TSNE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Vectors

MOST = 1_500
"""Utterances on a map; more would hide each other, and take longer than a person waits."""
_PENALTY = 1.0
_LIKENESS = 0.5
"""What likeness counts beside the task; it orders the points within their task."""
_PERPLEXITY = 30
_FEWEST = 5


def sample(labels: Sequence[str], most: int = MOST) -> NDArray[np.int64]:
    """Rows spread evenly over a set that is sorted by label; all of them where they are few."""
    count = len(labels)
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def landscape(
    vectors: Vectors, labels: Sequence[str], rows: NDArray[np.int64], queries: Vectors
) -> NDArray[np.float64]:
    """Places of ``rows`` of ``vectors``, then of ``queries``; shape (rows + queries, 2) in 0 to 1.

    What parts the tasks is learned from all ``vectors``, as the head learns it, and neighbours stay
    neighbours. Distances between far groups mean nothing. The same input gives the same map.
    """
    names = sorted(set(labels))
    targets = np.eye(len(names))[[names.index(label) for label in labels]]
    center = vectors.mean(axis=0)
    learned = Ridge(alpha=_PENALTY).fit(vectors - center, targets)
    shown = np.vstack([vectors[rows], queries]) - center
    scores = np.asarray(learned.predict(shown)).reshape(len(shown), -1)
    features = np.hstack([scores, _LIKENESS * shown])
    return _framed(_plane(features))


def _plane(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two coordinates a row; equal rows are set a little apart, for they have no direction."""
    features = features + 1e-4 * np.random.default_rng(0).standard_normal(features.shape)
    if len(features) < _FEWEST:
        return np.asarray(features[:, :2], dtype=np.float64)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, random_state=0).fit_transform(features))


def _framed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    low = points.min(axis=0)
    extent = points.max(axis=0) - low
    return np.asarray((points - low) / np.where(extent > 0, extent, 1))
