"""The trained verdict: from a text's features to the odds of each label.

A model of the states and a ridge regression on the words are weighed against each other under a
softmax. The two weights are fitted on texts that neither had seen, so the odds are calibrated.

Which model of the states: among a few labels, as a router's tasks mostly are, a ridge regression
on the states and the products of their main directions, solved exactly; among many labels, or
more texts than can be solved exactly, multinomial logistic regression. On the shipped utterances
(11 labels) the first is 4 points better in cross-validation, on CLINC150 (150) the second is 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from semroute_classifier.features import SURFACE, pair_indices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from semroute_classifier.features import Features, Inputs

    Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

FOLDS = 5
FEWEST = FOLDS
"""Examples of its rarest label below which nothing can be learned on held-out folds."""
FEW_LABELS, FEW_TEXTS = 32, 8_000
"""Up to so many of both, the states are regressed with their products."""
FOLDED_TEXTS = 3_000
"""Up to so many texts are each held out once; of more, a fifth tells enough."""
WORDS_WORK = 1_000_000
"""Texts times labels above which words are left out: they take minutes and, beside a hundred texts
for each of 150 labels, add nothing."""
PAIRS_SHARE = 0.5
PENALTIES = (0.2, 1.0)
"""Of the exact regression; the one under which held-out labels are likelier is taken."""
WORDS_PENALTY = 1.0
LOGISTIC_PENALTY = 0.1
_USUAL_WEIGHT = 3.0
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Head:
    """Odds of ``labels`` numbered from 0. Immutable; safe to share between threads.

    ``pairs`` and ``words`` have no rows where there is no such part.
    """

    dense: NDArray[np.float32]
    pairs: NDArray[np.float32]
    words: NDArray[np.float32]
    bias: NDArray[np.float32]

    def odds(
        self, features: Features, inputs: Inputs, pairs: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """The probability of each label, shape (texts, labels); rows sum to 1.

        ``pairs`` are ``features.pairs(inputs.dense)``, where they are known already.
        """
        scores = inputs.dense @ self.dense + self.bias
        if len(self.pairs):
            known = features.pairs(inputs.dense) if pairs is None else pairs
            scores += known @ self.pairs
        if len(self.words) and inputs.words is not None:
            scores += inputs.words @ self.words
        return softmax(scores)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Everything that has to be kept."""
        return {"dense": self.dense, "pairs": self.pairs, "words": self.words, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Head:
        """Raises ``KeyError`` where one is missing."""
        return cls(arrays["dense"], arrays["pairs"], arrays["words"], arrays["bias"])


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, and what it says of texts that it had not seen: ``rows`` of the texts it was fitted
    on, and their ``odds``, shape (rows, labels). ``splits`` are the pairs of (train, held out) rows
    by which that was found; ``rows`` are those held out."""

    head: Head
    rows: NDArray[np.int64]
    odds: NDArray[np.float64]
    splits: Splits


def fit(
    features: Features, inputs: Inputs, labels: NDArray[np.int64], splits: Splits | None = None
) -> Fitted | None:
    """Learn from examples; None where there are too few, or one label only.

    ``labels`` are numbered from 0, shape (texts,). ``splits`` measure it; without, its own do.
    """
    present = np.bincount(labels)
    if len(present) < 2 or present.min() < FEWEST:
        return None
    targets = (np.eye(len(present))[labels] - present / len(labels)).astype(np.float32)
    states = _of_states(features, inputs, labels, targets)
    words = _of_words(inputs, targets)
    parts = [part for part in (states, words) if part]
    splits = splits or list(_splits(labels))
    rows = np.concatenate([held for _, held in splits])
    scores = np.stack(
        [np.concatenate([part.held_out(*split) for split in splits]) for part in parts]
    )
    weights = _weigh(scores, labels[rows])
    head = states.head(float(weights[0]))
    if words:
        head = Head(head.dense, head.pairs, words.weights(float(weights[1])), head.bias)
    return Fitted(head, rows, softmax(np.tensordot(weights, scores, axes=1)), splits)


def within(splits: Splits, chosen: NDArray[np.int64], labels: NDArray[np.int64]) -> Splits | None:
    """``splits`` of all texts as splits of the ``chosen`` ones, which have these ``labels``; None
    where one of them would hold nothing out, or learn nothing of some label."""
    place = np.full(max(rows.max() for pair in splits for rows in pair) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    found = [(place[train], place[held]) for train, held in splits]
    found = [(train[train >= 0], held[held >= 0]) for train, held in found]
    count = len(np.unique(labels))
    whole = all(len(held) and len(np.unique(labels[train])) == count for train, held in found)
    return found if whole else None


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    powers = np.exp(np.asarray(scores, dtype=np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Ridge regression on states and the products of their directions, in its dual form."""

    features: Features
    dense: NDArray[np.float32]
    gram: NDArray[np.float32]
    targets: NDArray[np.float32]
    penalty: float

    def held_out(self, train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.gram[np.ix_(held, train)] @ self._solve(train), np.float32)

    def head(self, weight: float) -> Head:
        """What the dual form says, as weights of the features themselves."""
        dual = self._solve(np.arange(len(self.dense))) * np.float32(weight)
        pairs = sum(
            self.features.pairs(self.dense[start : start + _CHUNK]).T @ dual[start : start + _CHUNK]
            for start in range(0, len(self.dense), _CHUNK)
        )
        labels = self.targets.shape[1]
        return Head(
            dense=self.dense.T @ dual,
            pairs=np.asarray(PAIRS_SHARE * self._times()[:, None] * pairs, np.float32),
            words=np.empty((0, labels), np.float32),
            bias=np.zeros(labels, np.float32),
        )

    def _times(self) -> NDArray[np.int64]:
        """How often each pair stands in a square of a sum: two different ones twice."""
        first, second = pair_indices(self.features.directions.shape[1])
        return np.where(first == second, 1, 2)

    def _solve(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        gram = self.gram[np.ix_(rows, rows)]
        gram[np.diag_indices_from(gram)] += self.penalty
        solved = solve(gram, self.targets[rows], assume_a="pos", overwrite_a=True)
        return np.asarray(solved, np.float32)


@dataclass(frozen=True, slots=True)
class _Logistic:
    """Multinomial logistic regression on the states; the surface tells few of many labels."""

    dense: NDArray[np.float32]
    labels: NDArray[np.int64]

    def held_out(self, train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float32]:
        model = self._fit(train)
        return np.asarray(self.dense[held] @ model.coef_.T + model.intercept_, np.float32)

    def head(self, weight: float) -> Head:
        model = self._fit(np.arange(len(self.labels)))
        return Head(
            dense=np.pad(np.float32(weight) * model.coef_.T, ((0, SURFACE), (0, 0))),
            pairs=np.empty((0, len(model.intercept_)), np.float32),
            words=np.empty((0, len(model.intercept_)), np.float32),
            bias=np.asarray(weight * model.intercept_, np.float32),
        )

    def _fit(self, rows: NDArray[np.int64]) -> LogisticRegression:
        model = LogisticRegression(C=1 / LOGISTIC_PENALTY, tol=1e-4, max_iter=200)
        model.fit(self.dense[rows], self.labels[rows])
        if len(model.coef_) == 1:  # two labels: one row says how much likelier the second is
            model.coef_ = np.vstack([-model.coef_, model.coef_]) / 2
            model.intercept_ = np.concatenate([-model.intercept_, model.intercept_]) / 2
        return model


@dataclass(frozen=True, slots=True)
class _Words:
    """Ridge regression on the words."""

    words: csr_matrix
    targets: NDArray[np.float32]

    def held_out(self, train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.words[held] @ self._solve(train), np.float32)

    def weights(self, weight: float) -> NDArray[np.float32]:
        return self._solve(np.arange(len(self.targets))) * np.float32(weight)

    def _solve(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        model = Ridge(alpha=WORDS_PENALTY, solver="sparse_cg", fit_intercept=False, tol=1e-3)
        model.fit(self.words[rows], self.targets[rows])
        return np.ascontiguousarray(model.coef_.T, dtype=np.float32)


def _of_states(
    features: Features, inputs: Inputs, labels: NDArray[np.int64], targets: NDArray[np.float32]
) -> _Pairs | _Logistic:
    texts, count = targets.shape
    if count > FEW_LABELS or texts > FEW_TEXTS:
        return _Logistic(inputs.dense[:, :-SURFACE], labels)
    along = inputs.dense @ features.directions
    squares = PAIRS_SHARE * (along @ along.T) ** 2
    gram = np.asarray(inputs.dense @ inputs.dense.T + squares, np.float32)
    train, held = next(_splits(labels))

    def error(penalty: float) -> float:
        scores = _Pairs(features, inputs.dense, gram, targets, penalty).held_out(train, held)
        return float(((scores - targets[held]) ** 2).sum())

    return _Pairs(features, inputs.dense, gram, targets, min(PENALTIES, key=error))


def _of_words(inputs: Inputs, targets: NDArray[np.float32]) -> _Words | None:
    if inputs.words is None or targets.size > WORDS_WORK:
        return None
    return _Words(inputs.words, targets)


def _splits(labels: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of (train, held out), each with every label."""
    if len(labels) <= FOLDED_TEXTS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    else:
        folds = StratifiedShuffleSplit(1, test_size=1 / FOLDS, random_state=0)
    yield from folds.split(labels, labels)


def _weigh(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weights of the parts, scores of shape (parts, texts, labels), under which held-out
    labels are likeliest.

    A faint pull towards ``_USUAL_WEIGHT`` keeps them finite where a few examples part perfectly.
    """
    spread = scores.std(axis=(1, 2)) + 1e-9
    scores = scores / spread[:, None, None]
    own = scores[:, np.arange(len(labels)), labels]

    def loss(weights: NDArray[np.float64]) -> float:
        total = np.tensordot(weights, scores, axes=1)
        top = total.max(axis=1)
        normaliser = top + np.log(np.exp(total - top[:, None]).sum(axis=1))
        pull = ((weights / _USUAL_WEIGHT - 1) ** 2).sum() / len(labels)
        return float((normaliser - weights @ own).mean() + pull)

    found = minimize(loss, np.full(len(scores), _USUAL_WEIGHT)).x
    return np.asarray(found / spread, dtype=np.float64)
