"""What a text's labels are predicted from: its states, pairs of their directions, its words.

Fitted on the utterances once and shared by every head, so that a query pays for them once.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier import lexical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from semroute_classifier.encoders import States

DIRECTIONS = 256
"""Main directions of the states whose products are features: a quadratic model gained 3 points of
accuracy on the shipped utterances in cross-validation; half as many directions gave 1 of them."""
SURFACE_SHARE = 0.1
"""The length of each surface feature beside states of length 1; chosen by cross-validation. Tiers
are learned from it, tasks are not, nor are the main directions."""
SURFACE = 9
"""How many surface features there are; the last columns of ``Inputs.dense``."""
_ROUNDING = 1e-4
"""A spread that is none: equal values have one of this order after rounding."""
_SIGN = re.compile(r"[^\w\s]|_")
_SENTENCE_END = re.compile(r"[.!?。！？](?:\s|$)")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Features of texts: ``dense`` of shape (texts, width), ``words`` (texts, lexical.WIDTH), None
    where no head has a use for them."""

    dense: NDArray[np.float32]
    words: csr_matrix | None

    def __getitem__(self, rows: NDArray[np.int64]) -> Inputs:
        return Inputs(self.dense[rows], None if self.words is None else self.words[rows])

    def without_surface(self) -> Inputs:
        """The same with a surface that says nothing: a mark more or less must not name the task."""
        dense = self.dense.copy()
        dense[:, -SURFACE:] = 0
        return Inputs(dense, self.words)


@dataclass(frozen=True, slots=True)
class Features:
    """How to compute ``Inputs``. Immutable; safe to share between threads."""

    center: NDArray[np.float32]
    directions: NDArray[np.float32]
    surface_center: NDArray[np.float32]
    surface_scale: NDArray[np.float32]
    rarity: NDArray[np.float32]

    @classmethod
    def fit(cls, states: States, texts: Sequence[str]) -> tuple[Features, Inputs]:
        """Fit on texts, ``states`` of shape (texts, width), and give these texts' inputs."""
        counted = lexical.counts(texts)
        surface = _surface(texts)
        spread = surface.std(axis=0)
        spread[spread < _ROUNDING] = 1
        bare = cls(
            center=states.mean(axis=0),
            directions=np.empty((0, 0), np.float32),
            surface_center=surface.mean(axis=0),
            surface_scale=(SURFACE_SHARE / spread).astype(np.float32),
            rarity=lexical.rarity(counted),
        )
        dense = bare._dense(states, surface)
        parts = {field.name: getattr(bare, field.name) for field in fields(bare)}
        of_states = main_directions(dense[:, :-SURFACE], DIRECTIONS)
        fitted = cls(**(parts | {"directions": np.pad(of_states, ((0, SURFACE), (0, 0)))}))
        return fitted, Inputs(dense, counted.weighted(bare.rarity))

    def of(self, states: States, texts: Sequence[str], *, words: bool = True) -> Inputs:
        """The inputs of ``texts``, whose states have the shape (texts, width).

        Without ``words``, for heads that have no use for them, none are counted.
        """
        dense = self._dense(states, _surface(texts))
        return Inputs(dense, lexical.counts(texts).weighted(self.rarity) if words else None)

    def pairs(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """The products of every two directions, shape (texts, n * (n + 1) / 2)."""
        along = dense @ self.directions
        first, second = pair_indices(along.shape[1])
        return np.asarray(along.take(first, axis=1) * along.take(second, axis=1))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Everything that has to be kept."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Features:
        """Raises ``KeyError`` where one is missing."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def _dense(self, states: States, surface: NDArray[np.float32]) -> NDArray[np.float32]:
        """States around their mean, each row of unit length, and the surface beside them.

        The mean of all texts says nothing of any one of them.
        """
        moved = states - self.center
        lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved))[:, None]
        moved /= np.where(lengths > 0, lengths, 1)
        scaled = (surface - self.surface_center) * self.surface_scale
        # An odd text, such as a word of 500 letters, must not outshout its states.
        return np.hstack([moved, np.clip(scaled, -3 * SURFACE_SHARE, 3 * SURFACE_SHARE)])


@functools.cache
def pair_indices(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of the first and second of every pair out of ``count``, itself included."""
    return np.triu_indices(count)


def main_directions(dense: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """The principal directions of the rows, shape (width, at most ``most``)."""
    _, vectors = np.linalg.eigh(dense.T @ dense)
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], dtype=np.float32)


def _surface(texts: Sequence[str]) -> NDArray[np.float32]:
    """What a text looks like: cheap hints at how hard it is. Shape (texts, 9)."""
    return np.array([_surface_of(text) for text in texts], dtype=np.float32)


def _surface_of(text: str) -> tuple[float, ...]:
    words = text.split()
    letters = max(1, len(text))
    digits = sum(map(str.isdigit, text))
    return (
        np.log1p(len(words)),
        np.log1p(len(text)),
        letters / max(1, len(words)),
        "?" in text,
        "\n" in text,
        digits / letters,
        np.log1p(text.count(",") + text.count(";")),
        np.log1p(len(_SENTENCE_END.findall(text))),
        len(_SIGN.findall(text)) / letters,
    )
