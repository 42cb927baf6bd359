"""Vectors for callers: by the router's own encoder, or by the models that a profile's row names.

A row for ``embeddings`` with models of the kind ``embedding`` is asked like any other: governance
before every attempt, money put aside, the next candidate where one fails. The router's own encoder
never stands in for such a model, nor the other way round. A caller who compares vectors with older
ones names the model, since another one's are of no use to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from semroute_service import governance
from semroute_service.attempts import Attempts, Run
from semroute_service.backends import BackendError, Clocks, End
from semroute_service.backends.values import MAX_COUNT
from semroute_service.decision import ErrorClass, FinishReason, Usage, in_turn
from semroute_service.errors import (
    UnknownModelError,
)
from semroute_service.exhausted import exhausted, is_final, refused
from semroute_service.query import Caller, Capability
from semroute_service.schedule import HURRIED_SECONDS, Schedule
from semroute_service.screening import Screening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.encoders import Vectors
    from semroute_service.backends import BackendPool, Embedded
    from semroute_service.classifying import ClassifierPool
    from semroute_service.decision import Attempt, Candidate
    from semroute_service.ledger import Ledger
    from semroute_service.profile import Model, Profile, ProfileStore

ROW = "embeddings"
"""The row whose embedding models answer."""


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """Texts to be embedded. ``model`` insists on one of the profile's; ``deadline`` is of
    ``time.monotonic``."""

    texts: Sequence[str]
    caller: Caller = field(default_factory=Caller)
    profile: str = ""
    model: str = ""
    deadline: float | None = None

    @property
    def tokens(self) -> int:
        return _tokens(self.texts)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit rows, and who made them. ``attempts`` are empty for the router's own encoder."""

    vectors: Vectors
    model: str
    backend: str = ""
    usage: Usage | None = None
    cost: int = 0
    attempts: tuple[Attempt, ...] = ()


class Embedder:
    """Lives on one event loop."""

    def __init__(
        self,
        profiles: ProfileStore,
        classifiers: ClassifierPool,
        backends: BackendPool,
        ledger: Ledger,
    ) -> None:
        self._profiles = profiles
        self._classifiers = classifiers
        self._backends = backends
        self._ledger = ledger
        self._screening = Screening(backends, ledger)

    async def embed(self, ask: EmbedAsk) -> Embeddings:
        """The vectors of the texts, in order; raises ``SemrouteError``."""
        profile = self._profiles.get(ask.profile)
        if ask.model and ask.model not in profile.models:
            raise UnknownModelError(ask.model, profile.name, profile.models)
        models = _models(profile, ask.model)
        if not models:
            return Embeddings(*await self._classifiers.embed(profile.encoder, ask.texts))
        case = governance.Case(
            profile=profile,
            route=profile.route(ROW),
            caller=ask.caller,
            needs=frozenset({Capability.EMBEDDING}),
            parameters=frozenset(),
            prompt_tokens=ask.tokens,
            max_tokens=0,
            max_cost=profile.limits.max_per_request,
        )
        candidates = self._screening.screen(models, await self._screening.context(case))
        if not in_turn(candidates):
            raise self._screening.denied(case, candidates)
        attempts = Attempts(case, self._screening, self._ledger)
        return await _Embedding(ask, in_turn(candidates), attempts, self._backends).answer()


@dataclass
class _Embedding:
    """Attempts in order, until one has made the vectors."""

    ask: EmbedAsk
    candidates: tuple[Candidate, ...]
    attempts: Attempts
    backends: BackendPool
    _schedule: Schedule = field(init=False)
    _kept: dict[str, list[Embedded]] = field(default_factory=dict)
    """By the model's name, the parts that have come: none is asked and paid for again."""

    def __post_init__(self) -> None:
        behavior = self.attempts.case.profile.behavior
        self._schedule = Schedule(
            self.candidates,
            behavior.max_retries,
            self.backends.availability,
            self.ask.deadline,
            patience=behavior.first_token,
        )

    async def answer(self) -> Embeddings:
        while found := await self._schedule.next():
            slot, call = found
            run = Run(slot.candidate, call)
            made = await self._attempt(run)
            if made:
                return self._answered(run, np.concatenate([part.vectors for part in made]))
            assert run.error
            if is_final(run.error, self.attempts.case.profile.behavior):
                raise refused(run, self.attempts.made)
            self._schedule.failed(slot, run.error)
        raise exhausted(self.attempts, self._schedule)

    async def _attempt(self, run: Run) -> list[Embedded] | None:
        """What the backend made; None where there is an error in ``run`` instead."""
        parts = self._kept.setdefault(run.model.name, [])
        if not run.model.id:
            parts.clear()  # the model that the backend lists may be another one by now
        with self.attempts.keep(run):
            await self.attempts.admit(run)
            await self._within(run, parts)
            run.end = End(FinishReason.STOP, run.used)
        return parts if run.end else None

    async def _within(self, run: Run, parts: list[Embedded]) -> None:
        """Add to ``parts`` what is missing, in this attempt's share of the time."""
        behavior = self.attempts.case.profile.behavior
        clocks = Clocks(behavior.connect, behavior.headers, behavior.idle_bytes)
        share = self._schedule.share()
        limits = [limit for limit in (behavior.total, share) if limit is not None]
        limit = min(limits, default=None)
        try:
            async with asyncio.timeout(limit):
                await self._fill(run, parts, clocks)
        except TimeoutError:
            run.hurried = limit is share and share is not None and share < HURRIED_SECONDS
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, f"not within {limit:.3g} s") from None

    async def _fill(self, run: Run, parts: list[Embedded], clocks: Clocks) -> None:
        left = self.ask.texts[sum(len(part.vectors) for part in parts) :]
        made = self.backends.embed(run.model, left, clocks)
        async with contextlib.aclosing(made):
            async for part in made:
                count = len(part.vectors)
                run.used = _added(run.used or Usage(), part.usage, left[:count])
                left = left[count:]
                if parts and part.vectors.shape[1] != parts[0].vectors.shape[1]:
                    parts.clear()
                    what = "the dimension changes between two requests"
                    raise BackendError(ErrorClass.PROVIDER_PROTOCOL, what)
                parts.append(part)

    def _answered(self, run: Run, vectors: Vectors) -> Embeddings:
        made = self.attempts.made
        return Embeddings(
            vectors=vectors,
            model=run.model.name,
            backend=run.model.backend.name,
            usage=made[-1].usage,
            cost=self.attempts.cost,
            attempts=tuple(made),
        )


def _tokens(texts: Sequence[str]) -> int:
    """An estimate, rather too many than too few."""
    return sum(len(text.encode()) // 3 + 4 for text in texts)


def _added(before: Usage, told: Usage | None, texts: Sequence[str]) -> Usage:
    """``before``, and what was told of ``texts``, or is estimated of them."""
    tokens = before.prompt_tokens + (told.prompt_tokens if told else _tokens(texts))
    return Usage(min(tokens, MAX_COUNT), estimated=before.estimated or told is None)


def _models(profile: Profile, named: str) -> list[tuple[Model, bool]]:
    """The one that the caller names stands alone; otherwise those of the row that can embed."""
    if named:
        return [(profile.models[named], False)]
    route = profile.routes.get(ROW)
    models = profile.candidates(route, None) if route else []
    return [entry for entry in models if Capability.EMBEDDING in entry[0].capabilities]
