"""Words and letters beside the vector: hashed counts, weighted by rarity.

An embedding knows what a text is about; a word such as "fix" or "write" says what is wanted of it.
Hashing needs no vocabulary, so nothing but an array of weights has to be kept. The hash is our own,
because it must be the same in every process and take a fraction of an encoder's pass.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WORD_BITS, LETTER_BITS = 16, 17
WIDTH = 2**WORD_BITS + 2**LETTER_BITS
SHORTEST, LONGEST = 2, 5
"""The runs of letters that are counted; a space at either end of a word is one."""

_Numbers: TypeAlias = "NDArray[np.uint64]"
_WORD = re.compile(r"\w+")
_SPACE = np.uint64(32)
_BASE = np.uint64(1_000_003)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing


@dataclass(frozen=True, slots=True)
class Counts:
    """How often features occur in texts: the features of text i are
    ``features[starts[i]:starts[i + 1]]``, ascending, words below ``2**WORD_BITS``."""

    features: NDArray[np.int32]
    numbers: NDArray[np.float32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def weighted(self, rarity: NDArray[np.float32]) -> csr_matrix:
        """Sublinear counts times rarity, words and letters each of unit length. (texts, WIDTH)."""
        values = (1 + np.log(self.numbers)) * rarity[self.features]
        text = np.repeat(np.arange(len(self)), np.diff(self.starts))
        block = 2 * text + (self.features >= 2**WORD_BITS)
        lengths = np.sqrt(np.bincount(block, values * values, minlength=1))
        values = (values / lengths[block]).astype(np.float32)
        return csr_matrix((values, self.features, self.starts), shape=(len(self), WIDTH))


def counts(texts: Sequence[str]) -> Counts:
    """How often each word, each pair of words and each run of 2 to 5 letters of a word occurs."""
    found = [_features(text) for text in texts]
    starts = np.cumsum([0, *(len(features) for features, _ in found)])
    return Counts(
        np.concatenate([features for features, _ in found]).astype(np.int32),
        np.concatenate([numbers for _, numbers in found]).astype(np.float32),
        starts,
    )


def rarity(counted: Counts) -> NDArray[np.float32]:
    """The smoothed inverse document frequency of every feature, shape (WIDTH,)."""
    frequency = np.bincount(counted.features, minlength=WIDTH)
    return (np.log((1 + len(counted)) / (1 + frequency)) + 1).astype(np.float32)


def _features(text: str) -> tuple[_Numbers, NDArray[np.int64]]:
    text = text.lower()
    words = _bucket(_singles_and_pairs(_WORD.findall(text)), WORD_BITS)
    letters = _bucket(_runs(text.split()), LETTER_BITS) + np.uint64(2**WORD_BITS)
    return np.unique(np.concatenate([words, letters]), return_counts=True)


def _singles_and_pairs(words: list[str]) -> _Numbers:
    singles = np.array([zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in words], np.uint64)
    return np.concatenate([singles, singles[:-1] * _BASE + singles[1:]])


def _runs(words: list[str]) -> _Numbers:
    """A number for every run of letters and signs, of one length after another."""
    joined = f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(joined, np.uint32).astype(np.uint64)
    space = np.cumsum(points == _SPACE)
    found = []
    hashed = points
    for length in range(2, LONGEST + 1):
        if len(points) < length:
            break
        hashed = hashed[: len(points) - length + 1] * _BASE + points[length - 1 :]
        # Spaces strictly within a run would join two words.
        within = space[length - 2 : len(space) - 1] == space[: len(hashed)]
        found.append((hashed * _BASE + np.uint64(length))[within])
    return np.concatenate(found)


def _bucket(numbers: _Numbers, bits: int) -> _Numbers:
    return (numbers * _SPREAD) >> np.uint64(64 - bits)
