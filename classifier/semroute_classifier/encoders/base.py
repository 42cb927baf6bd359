"""What every encoder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Vectors: TypeAlias = NDArray[np.float32]
"""Rows of unit length, shape (texts, dimension)."""


class EncoderError(Exception):
    """An encoder cannot be loaded. The message says what to do about it."""


class Encoder(Protocol):
    """Turns texts into unit-length vectors. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """The name that decisions carry, such as ``bundled`` or ``BAAI/bge-m3``."""

    @property
    def dimension(self) -> int:
        """The number of values in a vector."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors of some text could change."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed ``texts``: shape (len(texts), dimension), float32, each row of unit length.

        A row depends on its own text alone, never on what else is embedded with it.
        """


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Scale every row to length 1; a row of zeros becomes the first axis."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        rows = rows.copy()
        rows[norms[:, 0] == 0, 0] = 1.0
        norms[norms == 0] = 1.0
    return np.ascontiguousarray(rows / norms, dtype=np.float32)
