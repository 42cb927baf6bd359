"""The trained verdict: from an encoder's states and a text's words to the odds of each label.

Two ridge regressions to the labels, one on the states and one on the words, each solved exactly.
Their scores are weighed against each other by a softmax whose two weights are fitted on
held-out folds, so the odds are calibrated on texts that the regressions had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedKFold

from semroute_classifier import lexical

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import States

FOLDS = 5
FEWEST = FOLDS
"""Examples of its rarest label below which nothing can be learned on held-out folds."""
STATES_PENALTY = 0.5
WORDS_PENALTY = 1.0
_USUAL_WEIGHT = 6.0


@dataclass(frozen=True)
class _Regression:
    """Scores of shape (texts, labels), linear in states and in words."""

    center: NDArray[np.float32]
    states: NDArray[np.float32]
    rarity: NDArray[np.float32]
    words: NDArray[np.float32]

    @classmethod
    def fit(cls, states: States, counts: _Counts, targets: NDArray[np.float32]) -> _Regression:
        center = states.mean(axis=0)
        rarity = lexical.rarity(counts)
        words = Ridge(alpha=WORDS_PENALTY, solver="sparse_cg", fit_intercept=False)
        words.fit(lexical.features(counts, rarity), targets)
        return cls(
            center,
            _ridge(_centered(states, center), targets, STATES_PENALTY),
            rarity,
            np.ascontiguousarray(words.coef_.T, dtype=np.float32),
        )

    def scores(self, states: States, counts: _Counts) -> NDArray[np.float32]:
        """Shape (2, texts, labels): by states, by words."""
        by_states = _centered(states, self.center) @ self.states
        by_words = lexical.features(counts, self.rarity) @ self.words
        return np.stack([by_states, by_words])


@dataclass(frozen=True)
class Head:
    """Odds of ``labels`` numbered from 0. Immutable; safe to share between threads."""

    regression: _Regression
    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, states: States, texts: Sequence[str], labels: NDArray[np.int64]) -> Head | None:
        """Learn from examples; None where there are too few, or one label only.

        ``states`` is of shape (texts, width), ``labels`` of shape (texts,).
        """
        present = np.bincount(labels)
        if len(present) < 2 or present.min() < FEWEST:
            return None
        counts = lexical.counts(texts)
        share = present / len(labels)
        targets = (np.eye(len(present))[labels] - share).astype(np.float32)
        held_out = np.empty((2, len(labels), len(present)), dtype=np.float32)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        for train, test in folds.split(states, labels):
            fitted = _Regression.fit(states[train], _rows(counts, train), targets[train])
            held_out[:, test] = fitted.scores(states[test], _rows(counts, test))
        return cls(_Regression.fit(states, counts, targets), _weigh(held_out, labels))

    def odds(self, states: States, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability of each label, shape (texts, labels); rows sum to 1."""
        scores = self.regression.scores(states, lexical.counts(texts))
        return _softmax(np.tensordot(self.weights, scores, axes=1))

    def save(self, path: Path) -> None:
        """Write arrays only, so that reading them back runs nothing."""
        r = self.regression
        np.savez(
            path,
            center=r.center, states=r.states, rarity=r.rarity, words=r.words, weights=self.weights,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Head:
        """Raises ``OSError``, ``ValueError``, ``KeyError``, ``EOFError`` or ``BadZipFile`` where
        ``path`` is no head.
        """
        # Opened here, because numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            regression = _Regression(kept["center"], kept["states"], kept["rarity"], kept["words"])
            return cls(regression, kept["weights"])


_Counts = tuple[csr_matrix, csr_matrix]


def _rows(counts: _Counts, rows: NDArray[np.int64]) -> _Counts:
    return counts[0][rows], counts[1][rows]


def _centered(states: States, center: NDArray[np.float32]) -> NDArray[np.float32]:
    """States around their mean, each row of unit length; the mean of all texts says nothing."""
    moved = states - center
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _ridge(
    rows: NDArray[np.float32], targets: NDArray[np.float32], penalty: float
) -> NDArray[np.float32]:
    """The exact solution, by whichever of the two equal forms is smaller. (width, labels)."""
    count, width = rows.shape
    if count < width:
        gram = rows @ rows.T
        gram[np.diag_indices(count)] += penalty
        return np.asarray(rows.T @ np.linalg.solve(gram, targets), dtype=np.float32)
    gram = rows.T @ rows
    gram[np.diag_indices(width)] += penalty
    return np.asarray(np.linalg.solve(gram, rows.T @ targets), dtype=np.float32)


def _weigh(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The two weights under which held-out labels are likeliest.

    A faint pull towards ``_USUAL_WEIGHT`` keeps them finite where a few examples part perfectly.
    """
    own = scores[:, np.arange(len(labels)), labels]

    def loss(weights: NDArray[np.float64]) -> float:
        total = np.tensordot(weights, scores, axes=1)
        top = total.max(axis=1)
        normaliser = top + np.log(np.exp(total - top[:, None]).sum(axis=1))
        pull = ((weights / _USUAL_WEIGHT - 1) ** 2).sum() / len(labels)
        return float((normaliser - weights @ own).mean() + pull)

    return np.asarray(minimize(loss, np.full(2, _USUAL_WEIGHT)).x, dtype=np.float64)


def _softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    powers = np.exp(np.asarray(scores, dtype=np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)
