"""Words and letters beside the vector: hashed counts, weighted by rarity.

An embedding knows what a text is about; a word such as "fix" or "write" says what is wanted of it.
Hashing needs no vocabulary, so nothing but an array of weights has to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SETTINGS: dict[str, Any] = {"alternate_sign": False, "norm": None, "dtype": np.float32}
_WORDS = HashingVectorizer(ngram_range=(1, 2), n_features=2**16, **_SETTINGS)
_LETTERS = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), n_features=2**17, **_SETTINGS)
WIDTH = _WORDS.n_features + _LETTERS.n_features


def counts(texts: Sequence[str]) -> tuple[csr_matrix, csr_matrix]:
    """How often each word (and pair of words) and each run of 2 to 5 letters occurs."""
    return _WORDS.transform(texts), _LETTERS.transform(texts)


def rarity(blocks: tuple[csr_matrix, csr_matrix]) -> NDArray[np.float32]:
    """The smoothed inverse document frequency of every feature, shape (WIDTH,)."""
    weights = [
        np.log((1 + block.shape[0]) / (1 + np.asarray((block > 0).sum(axis=0)).ravel())) + 1
        for block in blocks
    ]
    return np.concatenate(weights).astype(np.float32)


def features(blocks: tuple[csr_matrix, csr_matrix], weights: NDArray[np.float32]) -> csr_matrix:
    """Sublinear counts times rarity; words and letters each of unit length. (texts, WIDTH)."""
    weighted = []
    start = 0
    for block in blocks:
        block = block.copy()
        block.data = (1 + np.log(block.data)) * weights[start : start + block.shape[1]][
            block.indices
        ]
        lengths = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())
        block.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(block.indptr))
        weighted.append(block)
        start += block.shape[1]
    return hstack(weighted, format="csr", dtype=np.float32)
