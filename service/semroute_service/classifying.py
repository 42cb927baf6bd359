"""The classifiers that serve: one for each encoder that a profile names, built when needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from semroute_classifier.batcher import MAX_BATCH, Batcher, QueueFullError
from semroute_classifier.classifier import Classification, Classifier, Turn
from semroute_classifier.encoders import (
    EncoderUnavailableError,
    RemoteEncoder,
    RemoteModel,
    load_encoder,
    vectors_of,
)
from semroute_service.errors import NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders import EncoderSpec, Vectors
    from semroute_classifier.utterances import UtteranceSet

RECENT = 4096
"""Verdicts that are remembered: pipelines ask the same again and again."""
AT_ONCE = 4
"""So many turns may be judged by the static encoder on the event loop; more would hold it up."""
SHORT = 2_000
"""Characters of a turn that is read on the event loop; a megabyte takes tens of milliseconds."""
REMOTE_BATCH = 32
"""Turns that share a request to a remote encoder, which a small batch would cost more of."""
_log = logging.getLogger(__name__)
_Embedded: TypeAlias = "NDArray[np.float32]"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn to be classified, with so many matches as evidence."""

    turn: Turn
    evidence: int
    cascade: bool = True


class ReadyClassifier:
    """A classifier whose encoder runs in its own thread. Lives on one event loop."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        is_remote = isinstance(classifier.encoder, RemoteEncoder)
        self._batcher: Batcher[Asked | str, Classification | _Embedded] = Batcher(
            self._run, max_batch=REMOTE_BATCH if is_remote else MAX_BATCH
        )
        self._recent: OrderedDict[bytes, Classification] = OrderedDict()

    async def classify(self, asked: Sequence[Asked]) -> list[Classification]:
        """One verdict for each; raises ``OverloadedError`` where too much is waiting.

        A turn that was judged lately has its verdict at once, and with the cascade a few turns
        are first shown to the static encoder, without waiting for anything.
        """
        keys = [_key(one) for one in asked]
        found = [self._recall(key) for key in keys]
        new = [i for i, verdict in enumerate(found) if verdict is None]
        left: dict[int, Asked] = {}
        for i in new:
            one = asked[i]
            if one.cascade and len(asked) <= AT_ONCE and len(one.turn.text) <= SHORT:
                found[i] = self.classifier.quick(one.turn, one.evidence)
                one = replace(one, cascade=False)  # the static encoder has been asked
            if found[i] is None:
                left[i] = one
        if left:
            for i, verdict in zip(left, await self._submit(list(left.values())), strict=True):
                assert isinstance(verdict, Classification)
                found[i] = verdict
        verdicts = [verdict for verdict in found if verdict]
        for i in new:
            self._remember(keys[i], verdicts[i])
        return verdicts

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimension), rows of unit length; raises as ``classify`` does."""
        rows = [row for row in await self._submit(list(texts)) if isinstance(row, np.ndarray)]
        return np.stack(rows)

    def close(self) -> None:
        """Let the encoder's thread end after the pass that runs."""
        self._batcher.close()

    async def _submit(self, items: Sequence[Asked | str]) -> list[Classification | _Embedded]:
        try:
            return await self._batcher.submit(items)
        except QueueFullError as error:
            raise OverloadedError(str(error)) from None

    def _run(self, items: Sequence[Asked | str]) -> list[Classification | _Embedded]:
        """In the encoder's thread: those that ask alike share a call."""
        groups: dict[tuple[int, bool] | None, list[int]] = {}
        for i, item in enumerate(items):
            key = None if isinstance(item, str) else (item.evidence, item.cascade)
            groups.setdefault(key, []).append(i)
        results: dict[int, Classification | _Embedded] = {}
        for key, members in groups.items():
            mine = [items[i] for i in members]
            answers: Sequence[Classification | _Embedded]
            if key is None:
                states = self.classifier.embed([text for text in mine if isinstance(text, str)])
                answers = list(vectors_of(states, self.classifier.encoder))
            else:
                turns = [one.turn for one in mine if isinstance(one, Asked)]
                answers = self.classifier.classify(turns, key[0], cascade=key[1])
            results.update(zip(members, answers, strict=True))
        return [results[i] for i in range(len(items))]

    def _recall(self, key: bytes) -> Classification | None:
        verdict = self._recent.get(key)
        if verdict is None:
            return None
        self._recent.move_to_end(key)
        return verdict

    def _remember(self, key: bytes, verdict: Classification) -> None:
        self._recent[key] = replace(verdict, search_seconds=0.0)  # recalled, it costs no search
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _key(asked: Asked) -> bytes:
    """A digest, so that no query is kept in memory."""
    how = f"{asked.evidence}\0{asked.cascade}\0{len(asked.turn.previous)}\0"
    text = f"{how}{asked.turn.previous}{asked.turn.text}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class ClassifierPool:
    """Lives on one event loop; the encoders load in threads."""

    def __init__(
        self, utterances: UtteranceSet, home: Path | None = None, encoder: str = ""
    ) -> None:
        """``encoder`` overrides what profiles name, where it is not empty."""
        self.utterances = utterances
        self._home = home
        self._override = encoder
        self._building: dict[EncoderSpec, asyncio.Task[ReadyClassifier]] = {}
        self._closed = False

    async def get(self, encoder: EncoderSpec) -> ReadyClassifier:
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

    async def classify(
        self, encoder: EncoderSpec, asked: Sequence[Asked]
    ) -> tuple[list[Classification], str]:
        """The verdicts, and the name of the encoder that served them.

        Where a remote encoder does not answer, the local one that the profile names for that case
        takes its place, with vectors of its own; where it names none, raises ``NotReadyError``.
        """
        ready, verdicts = await self._with_fallback(encoder, lambda ready: ready.classify(asked))
        return verdicts, ready.classifier.encoder.name

    async def embed(self, encoder: EncoderSpec, texts: Sequence[str]) -> tuple[Vectors, str]:
        """The vectors of ``texts``, and the name of the encoder; raises as ``classify`` does."""
        ready, vectors = await self._with_fallback(encoder, lambda ready: ready.embed(texts))
        return vectors, ready.classifier.encoder.name

    async def warm(self, encoder: EncoderSpec) -> None:
        """Build what ``encoder`` needs, its fallback too; raises as ``get`` does."""
        if isinstance(encoder, RemoteModel) and encoder.fallback and not self._override:
            await self.get(encoder.fallback)
            try:
                await self.get(encoder)
            except EncoderUnavailableError as error:
                _log.warning("%s stands in: %s", encoder.fallback, error)
        else:
            await self.get(encoder)

    async def close(self) -> None:
        """Stop the encoders' threads; a build ends after the pass that runs."""
        self._closed = True
        for task in self._building.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()
            task.cancel()

    async def _with_fallback(
        self,
        encoder: EncoderSpec,
        work: Callable[[ReadyClassifier], Awaitable[_Answer]],
    ) -> tuple[ReadyClassifier, _Answer]:
        try:
            ready = await self.get(encoder)
            return ready, await work(ready)
        except EncoderUnavailableError as error:
            fallback = encoder.fallback if isinstance(encoder, RemoteModel) else ""
            if not fallback:
                raise NotReadyError(f"the encoder does not answer: {error}") from error
            _log.warning("%s stands in: %s", fallback, error)
        ready = await self.get(fallback)
        return ready, await work(ready)

    def _build(self, spec: EncoderSpec) -> ReadyClassifier:
        start = time.perf_counter()
        encoder = load_encoder(spec, self._home)
        count = len(self.utterances.utterances)
        _log.info("encoder %s loaded in %.1f s", encoder.name, time.perf_counter() - start)
        classifier = Classifier.build(self.utterances, encoder, self._home, self._progress)
        # What a query multiplies is small: a pool of threads for it only disturbs the encoder.
        threadpool_limits(1, user_api="blas")
        _log.info("classifier ready: %d utterances, %d tasks", count, len(self.utterances.tasks))
        if classifier.gate:
            _log.info("the static encoder may answer about %.0f %%", 100 * classifier.gate.share)
        return ReadyClassifier(classifier)

    def _progress(self, done: int, total: int) -> None:
        if self._closed:
            raise NotReadyError("the server is stopping")
        if done == total or done % 512 == 0:
            _log.info("embedding utterances: %d of %d", done, total)
