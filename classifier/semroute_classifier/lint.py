"""What is doubtful in a set of utterances, found before it teaches the classifier anything.

An error contradicts itself, a warning is surely not meant, and a note is worth a look: the nearest
utterances of an odd but right example belong to another task, too.
"""

from __future__ import annotations

import enum
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.index import Index
from semroute_classifier.judging import TEMPERATURE
from semroute_classifier.utterances import NONE, THIN, Tier
from semroute_classifier.verdict import Match

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from semroute_classifier.encoders import Vectors
    from semroute_classifier.utterances import Utterance, UtteranceSet

NEAR = 0.95
"""The cosine from which two utterances say the same; encoders differ little so far up."""
NEIGHBOURS = 20
"""How many neighbours vote on an utterance; fewer where its task is smaller."""
LIKELY, SURELY = 0.6, 0.9
"""The share of its neighbours' vote for one other task that is a note, and a warning."""
LOPSIDED = 4
"""So many times as large as its smallest tier a task's largest may not be."""
_FEWEST_NEIGHBOURS = 3
_SHOWN = 3
_ENDS = " .!?…。！？"


class Level(enum.IntEnum):
    """How bad a finding is; ordered."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One doubt. ``utterance`` is None where it is about the whole task.

    ``others`` are the utterances that raise it, with their similarity to ``utterance``.
    """

    level: Level
    rule: str
    task: str
    message: str
    utterance: Utterance | None = None
    others: tuple[Match, ...] = ()


def lint(
    utterances: UtteranceSet, vectors: Vectors, *, near: float = NEAR, fewest: int = THIN
) -> list[Finding]:
    """Every doubt about ``utterances``, the worst first; ``vectors`` are theirs, in order.

    ``near`` is the cosine from which two say the same; a task with fewer than ``fewest`` is thin.
    """
    rows = utterances.utterances
    similarities, nearest = _neighbours(vectors)
    findings = [
        *_repeated(rows),
        *_too_near(rows, similarities, nearest, near),
        *_outvoted(rows, similarities, nearest),
        *_thin(rows, fewest),
        *_uneven(rows),
    ]
    return sorted(findings, key=lambda finding: -finding.level)


def _neighbours(vectors: Vectors) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and rows of each utterance's neighbours, itself left out, nearest first."""
    count = len(vectors)
    similarities, rows = Index(vectors).search(np.ascontiguousarray(vectors), NEIGHBOURS + 1)
    others = rows != np.arange(count)[:, None]
    others[others.all(axis=1), -1] = False  # itself behind as many that are equal
    return similarities[others].reshape(count, -1), rows[others].reshape(count, -1)


def _repeated(rows: Sequence[Utterance]) -> Iterator[Finding]:
    """The same text twice; only the first of several is named with each."""
    first: dict[str, Utterance] = {}
    for utterance in rows:
        other = first.setdefault(normalised(utterance.text), utterance)
        if other is utterance:
            continue
        same_task = other.task == utterance.task
        yield Finding(
            Level.WARNING if same_task else Level.ERROR,
            "repeated" if same_task else "contradiction",
            utterance.task,
            _twice("the same text stands", utterance, other),
            utterance,
            (Match(other, 1.0),),
        )


def _too_near(
    rows: Sequence[Utterance],
    similarities: NDArray[np.float32],
    nearest: NDArray[np.int64],
    near: float,
) -> Iterator[Finding]:
    """Pairs that say the same in other words, or nearly; the nearest pairs first."""
    pairs = [
        (float(similarities[i, k]), i, int(nearest[i, k]))
        for i, k in np.argwhere(similarities >= near).tolist()
        if nearest[i, k] < i  # each pair once, at the later of the two
    ]
    for similarity, i, j in sorted(pairs, reverse=True):
        utterance, other = rows[i], rows[j]
        if normalised(utterance.text) != normalised(other.text):
            yield Finding(
                Level.WARNING,
                "near_repeated" if other.task == utterance.task else "near_contradiction",
                utterance.task,
                _twice("nearly the same stands", utterance, other),
                utterance,
                (Match(other, min(similarity, 1.0)),),
            )


def _outvoted(
    rows: Sequence[Utterance], similarities: NDArray[np.float32], nearest: NDArray[np.int64]
) -> Iterator[Finding]:
    """Utterances whose neighbours belong to one other task; the most outvoted first.

    Of a task with a few utterances only, none could be among its own.
    """
    labels = sorted({u.task for u in rows})
    task_of = np.array([labels.index(u.task) for u in rows])
    votes = _votes(task_of, similarities, nearest, len(labels))
    winner = votes.argmax(axis=1)
    share = votes.max(axis=1)
    own = np.bincount(task_of)[task_of] - 1
    for i in np.argsort(-share, kind="stable").tolist():
        if share[i] >= LIKELY and winner[i] != task_of[i] and own[i] >= _FEWEST_NEIGHBOURS:
            yield Finding(
                Level.WARNING if share[i] >= SURELY else Level.NOTE,
                "outvoted",
                rows[i].task,
                f"its neighbours say {labels[winner[i]]} ({share[i]:.0%})",
                rows[i],
                tuple(
                    Match(rows[j], float(similarity))
                    for j, similarity in zip(nearest[i, :_SHOWN], similarities[i], strict=False)
                ),
            )


def _votes(
    task_of: NDArray[np.int64],
    similarities: NDArray[np.float32],
    nearest: NDArray[np.int64],
    count: int,
) -> NDArray[np.float64]:
    """The share of each task in the vote on each utterance, shape (utterances, tasks).

    Only as many vote as could be of its own task, or a small task would always lose.
    """
    votes = np.zeros((len(task_of), count))
    if not nearest.shape[1]:
        return votes
    own = np.bincount(task_of)[task_of] - 1
    voters = np.clip(own, _FEWEST_NEIGHBOURS, NEIGHBOURS)[:, None]
    weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
    weights = weights * (np.arange(nearest.shape[1]) < voters)
    np.add.at(votes, (np.arange(len(task_of))[:, None], task_of[nearest]), weights)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def _thin(rows: Sequence[Utterance], fewest: int) -> Iterator[Finding]:
    for task, count in Counter(u.task for u in rows).items():
        if count < fewest:
            message = f"has {count} utterances; {fewest} or more serve better"
            yield Finding(Level.WARNING, "thin", task, message)


def _uneven(rows: Sequence[Utterance]) -> Iterator[Finding]:
    """Tasks with tiers of which one is missing, or much smaller than another."""
    counts = Counter((u.task, u.tier) for u in rows)
    for task in dict.fromkeys(u.task for u in rows if u.tier and u.task != NONE):
        tiers = {tier.word: counts[task, tier] for tier in Tier}
        missing = [word for word, count in tiers.items() if not count]
        if missing:
            message = f"has no utterance that is {' or '.join(missing)}"
            yield Finding(Level.WARNING, "missing_tier", task, message)
        elif max(tiers.values()) > LOPSIDED * min(tiers.values()):
            sizes = ", ".join(f"{count} {word}" for word, count in tiers.items())
            message = f"has tiers of very different size: {sizes}"
            yield Finding(Level.WARNING, "uneven_tiers", task, message)


def normalised(text: str) -> str:
    """A text without what does not change its meaning: case, width, spaces, closing marks."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.rstrip(_ENDS) or plain


def _twice(what: str, utterance: Utterance, other: Utterance) -> str:
    if utterance.task != other.task:
        return f"{what} in {other.task}, too; keep it in one of the two"
    if utterance.tier != other.tier and other.tier:
        return f"{what} under {other.tier.word}, too; keep it in one tier"
    return f"{what} here twice; keep one of the two"
