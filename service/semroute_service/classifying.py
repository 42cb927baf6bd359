"""The classifiers that serve: one for each encoder that a profile names, built when needed."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semroute_classifier.batcher import Batcher, QueueFullError
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_service.errors import NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from semroute_classifier.encoders import States, Vectors
    from semroute_classifier.utterances import UtteranceSet

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadyClassifier:
    """A classifier whose encoder runs in its own thread."""

    classifier: Classifier
    batcher: Batcher

    async def states(self, texts: Sequence[str]) -> States:
        """Shape (texts, width); raises ``OverloadedError`` where too much is waiting."""
        try:
            return await self.batcher.encode(texts)
        except QueueFullError as error:
            raise OverloadedError(str(error)) from None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimension), rows of unit length; raises as ``states`` does."""
        return vectors_of(await self.states(texts), self.classifier.encoder)


class ClassifierPool:
    """Lives on one event loop; the encoders load in threads."""

    def __init__(
        self, utterances: UtteranceSet, home: Path | None = None, encoder: str = ""
    ) -> None:
        """``encoder`` overrides what profiles name, where it is not empty."""
        self.utterances = utterances
        self._home = home
        self._override = encoder
        self._building: dict[str, asyncio.Task[ReadyClassifier]] = {}
        self._closed = False

    async def get(self, encoder: str) -> ReadyClassifier:
        """The classifier for ``encoder``; concurrent callers wait for the same build.

        Raises ``EncoderError`` where it cannot be built; the next call tries again.
        """
        spec = self._override or encoder
        task = self._building.get(spec)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._build, spec))
            self._building[spec] = task
        try:
            # Shielded: a caller that leaves must not stop the build for the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if self._building.get(spec) is task:  # another caller may have begun anew
                del self._building[spec]
            raise

    async def close(self) -> None:
        """Stop the encoders' threads; a build ends after the pass that runs."""
        self._closed = True
        for task in self._building.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().batcher.close()
            task.cancel()

    def _build(self, spec: str) -> ReadyClassifier:
        start = time.perf_counter()
        encoder = load_encoder(spec, self._home)
        count = len(self.utterances.utterances)
        _log.info("encoder %s loaded in %.1f s", encoder.name, time.perf_counter() - start)
        classifier = Classifier.build(self.utterances, encoder, self._home, self._progress)
        _log.info("classifier ready: %d utterances, %d tasks", count, len(self.utterances.tasks))
        return ReadyClassifier(classifier, Batcher(classifier.embed))

    def _progress(self, done: int, total: int) -> None:
        if self._closed:
            raise NotReadyError("the server is stopping")
        if done == total or done % 512 == 0:
            _log.info("embedding utterances: %d of %d", done, total)
