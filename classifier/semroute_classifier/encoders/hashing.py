"""An encoder without weights: hashed words and character trigrams."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.encoders.base import unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from semroute_classifier.encoders.base import Vectors

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """Deterministic and instant. Knows spelling, not meaning: for tests and dry runs."""

    name = "hashing"

    def __init__(self, dimension: int = 512, window: int = 1_000_000) -> None:
        """It has no limit of its own; a smaller ``window`` is for tests of what is cut."""
        self.dimension = self.width = dimension
        self.window = window
        self.fingerprint = f"hashing-1-{dimension}"

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in _WORD.finditer(text)]

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for feature, weight in _features(text):
                digest = zlib.crc32(feature.encode())
                row[digest % self.dimension] += weight if digest & 0x80000000 else -weight
        return unit_rows(vectors)


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(text.casefold()):
        yield word, 1.0
        padded = f"<{word}>"
        for i in range(len(padded) - 2):
            yield padded[i : i + 3], 0.3
