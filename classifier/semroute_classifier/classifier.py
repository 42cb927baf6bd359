"""The classifier: reads a query, lets the static encoder answer where it may, else the full one.

A short follow-up that says little alone is read together with the user's turn before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semroute_classifier import cascade as cascades
from semroute_classifier.artifacts import load_or_build
from semroute_classifier.encoders.engine import OnnxEncoder
from semroute_classifier.encoders.static import distil, load_static
from semroute_classifier.judging import Judge
from semroute_classifier.reading import Reader
from semroute_classifier.utterances import NONE
from semroute_classifier.verdict import Basis, Classification, Match, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from semroute_classifier.artifacts import Artifact
    from semroute_classifier.cascade import Gate
    from semroute_classifier.encoders import Encoder, States, Vectors
    from semroute_classifier.utterances import UtteranceSet

    Progress = Callable[[int, int], None]

__all__ = ["Basis", "Classification", "Classifier", "Match", "Stage", "Turn"]

IN_SCOPE_LOSS = 0.05
"""The share of in-scope queries that may be sent to the default, so that others are caught."""
FOLLOW_UP_WORDS = 12
"""A turn of more words than this speaks for itself."""
CLEAR = 0.9
"""The confidence from which a short turn speaks for itself too."""
BEYOND = 0.97
"""The probability of ``none`` from which a short turn follows up nothing, such as "thanks, bye"."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A query and the user's turn before it, empty where there was none."""

    text: str
    previous: str = ""


class Classifier:
    """Judges queries against an utterance set. Immutable once built; safe to share."""

    def __init__(
        self,
        utterances: UtteranceSet,
        encoder: Encoder,
        artifact: Artifact,
        static: tuple[Encoder, Artifact] | None = None,
        loss: float = IN_SCOPE_LOSS,
    ) -> None:
        """``artifact`` is what was built from ``utterances`` with ``encoder``; ``static`` is a
        cheaper encoder with its artifact of the same utterances."""
        self.utterances = utterances
        self.encoder = encoder
        self._reader = Reader(encoder)
        self._full = Judge(utterances, encoder, artifact, loss)
        self._static = Judge(utterances, *static, loss) if static else None
        self.gate: Gate | None = cascades.choose(self._static, self._full) if self._static else None

    @classmethod
    def build(
        cls,
        utterances: UtteranceSet,
        encoder: Encoder,
        home: Path | None = None,
        progress: Progress | None = None,
    ) -> Classifier:
        """Embed the utterances and learn from them, or take both from ``home``."""
        artifact = load_or_build(utterances, encoder, home, progress)
        static = None
        if artifact.heads and isinstance(encoder, OnnxEncoder):
            # For a large engine the table takes minutes: `semroute encoder build` makes it.
            table = load_static(encoder) or (distil(encoder) if encoder.small else None)
            static = (table, load_or_build(utterances, table, home)) if table else None
        return cls(utterances, encoder, artifact, static)

    @property
    def threshold(self) -> float:
        """The least confidence of a matched query."""
        return self._full.confidence.threshold

    @property
    def least_similarity(self) -> float:
        """The least similarity of its nearest utterance; 0 where the confidence is measured."""
        return self._full.least_similarity

    @property
    def vectors(self) -> Vectors:
        """The utterances' vectors, shape (utterances, dimension)."""
        return self._full.artifact.vectors

    def classify(
        self, turns: Sequence[str | Turn], evidence: int = 5, *, cascade: bool = False
    ) -> list[Classification]:
        """The verdict on each turn; with ``cascade`` the static encoder may give it.

        Blocks for an encoder's passes; a server calls it in a thread.
        """
        asked = [Turn(turn) if isinstance(turn, str) else turn for turn in turns]
        found: list[Classification | None] = [
            self.quick(turn, evidence) if cascade else None for turn in asked
        ]
        left = [i for i, verdict in enumerate(found) if verdict is None]
        if left:
            for i, verdict in zip(
                left, self._alone([asked[i] for i in left], evidence), strict=True
            ):
                found[i] = verdict
        vague = [i for i in left if self._needs_context(asked[i], found[i])]
        if vague:
            together = self._alone(
                [Turn(f"{asked[i].previous}\n{asked[i].text}") for i in vague], evidence
            )
            for i, verdict in zip(vague, together, strict=True):
                if verdict.task:
                    found[i] = replace(verdict, in_context=True)
        return [verdict for verdict in found if verdict]

    def quick(self, turn: Turn, evidence: int = 5) -> Classification | None:
        """The static encoder's verdict where its gate opens: some hundred microseconds."""
        if self._static is None or self.gate is None:
            return None
        reading = self._reader.read(turn.text)
        states = self._static.encoder.encode([reading.text])
        verdict = self._static.judge([reading], states, max(1, evidence), Stage.STATIC)[0]
        if not self.gate.opens(verdict) or self._needs_context(turn, verdict):
            return None
        return verdict if evidence else replace(verdict, matches=())

    def embed(self, texts: Sequence[str]) -> States:
        """One encoder pass a text: shape (texts, width). Blocks."""
        return self.encoder.encode([self._reader.read(text).text for text in texts])

    def judge(
        self, texts: Sequence[str], states: States, evidence: int = 5
    ) -> list[Classification]:
        """The full encoder's verdict on ``texts``, whose states ``embed`` gave."""
        return self._full.judge([self._reader.read(text) for text in texts], states, evidence)

    def _alone(self, turns: Sequence[Turn], evidence: int) -> list[Classification]:
        readings = [self._reader.read(turn.text) for turn in turns]
        states = self.encoder.encode([reading.text for reading in readings])
        return self._full.judge(readings, states, evidence)

    @staticmethod
    def _needs_context(turn: Turn, verdict: Classification | None) -> bool:
        if not turn.previous or verdict is None or len(turn.text.split()) > FOLLOW_UP_WORDS:
            return False
        beyond = dict(verdict.odds).get(NONE, 0.0) >= BEYOND
        return not beyond and (verdict.task is None or verdict.confidence < CLEAR)
