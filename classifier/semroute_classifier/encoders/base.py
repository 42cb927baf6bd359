"""What every encoder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Vectors: TypeAlias = NDArray[np.float32]
"""Rows of unit length, shape (texts, dimension)."""
States: TypeAlias = NDArray[np.float32]
"""What an encoder knows of each text, shape (texts, width): the states of some of its layers side
by side, each of unit length, and last the text's vector."""


class EncoderError(Exception):
    """An encoder cannot be loaded. The message says what to do about it."""


class Encoder(Protocol):
    """Turns texts into states and vectors. Called from one thread at a time.

    A model trained for similarity keeps in its last layer what a text is about. What its writer
    wants done stands plainer some layers earlier, and comes with the same pass; so ``encode`` gives
    both.
    """

    @property
    def name(self) -> str:
        """The name that decisions carry, such as ``bundled`` or ``BAAI/bge-m3``."""

    @property
    def dimension(self) -> int:
        """The number of values in a vector."""

    @property
    def width(self) -> int:
        """The number of values in a row of states; at least ``dimension``."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors of some text could change."""

    @property
    def window(self) -> int:
        """How many tokens of a text are read, special ones among them."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of the whole ``text`` starts and ends, in characters; none special."""

    def encode(self, texts: Sequence[str]) -> States:
        """The states of ``texts``: shape (len(texts), width), float32.

        A row depends on its own text alone, never on what else is embedded with it.
        """


def vectors_of(states: States, encoder: Encoder) -> Vectors:
    """The vectors in ``states``: shape (texts, dimension), each row of unit length."""
    return states[:, -encoder.dimension :]


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Scale every row to length 1; a row of zeros becomes the first axis."""
    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        rows = rows.copy()
        rows[norms[:, 0] == 0, 0] = 1.0
        norms[norms == 0] = 1.0
    return np.ascontiguousarray(rows / norms, dtype=np.float32)
