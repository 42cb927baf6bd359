"""From a query to a decision, and from a decision to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from semroute_classifier.classifier import Basis, Turn
from semroute_service import governance
from semroute_service.classifying import Asked
from semroute_service.completion import Completion
from semroute_service.decision import Candidate, Decision, Elapsed
from semroute_service.errors import (
    InvalidRequestError,
    NoCompliantModelError,
    SemrouteError,
    UnknownModelError,
)
from semroute_service.query import Objective, Options, Preferences
from semroute_service.sessions import TierFloors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from semroute_classifier.classifier import Classification
    from semroute_classifier.encoders import EncoderSpec, Vectors
    from semroute_service.backends import BackendPool
    from semroute_service.classifying import ClassifierPool
    from semroute_service.completion import CompletionEvent
    from semroute_service.ledger import Ledger
    from semroute_service.profile import Model, Profile, ProfileStore, Route
    from semroute_service.query import Query

EVIDENCE = 5
EVIDENCE_EXPLAINED = 20
_YIELD_EVERY = 16
"""Decisions of a batch between which other requests get their turn."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a decision. ``options`` are None where no completion is wanted."""

    query: Query
    profile: str = ""
    preferences: Preferences = field(default_factory=Preferences)
    options: Options | None = None


class Router:
    """The core: knows no wire. Lives on one event loop."""

    def __init__(
        self,
        profiles: ProfileStore,
        classifiers: ClassifierPool,
        backends: BackendPool,
        ledger: Ledger,
    ) -> None:
        self.profiles = profiles
        self.classifiers = classifiers
        self.backends = backends
        self.ledger = ledger
        self.floors = TierFloors()

    async def decide(self, ask: Ask) -> Decision:
        """The decision on ``ask``; raises ``SemrouteError``."""
        result = (await self.decide_many([ask]))[0]
        if isinstance(result, SemrouteError):
            raise result
        return result

    async def decide_many(self, asks: Sequence[Ask]) -> list[Decision | SemrouteError]:
        """One result for each ask, in order; those with the same encoder share its passes."""
        start = time.perf_counter()
        results: dict[int, Decision | SemrouteError] = {}
        by_encoder: defaultdict[EncoderSpec, list[tuple[int, Profile]]] = defaultdict(list)
        for i, ask in enumerate(asks):
            try:
                profile = self.profiles.get(ask.profile)
                self._check(ask, profile)
            except SemrouteError as error:
                results[i] = error
            else:
                by_encoder[profile.encoder].append((i, profile))
        for encoder, members in by_encoder.items():
            classify_start = time.perf_counter()
            asked = [_asked(asks[i], profile) for i, profile in members]
            verdicts, name = await self.classifiers.classify(encoder, asked)
            took = time.perf_counter() - classify_start
            for row, (i, profile) in enumerate(members):
                if row and row % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                verdict = self.floors.hold(asks[i].query.session_id, verdicts[row])
                work = _Work(asks[i], profile, verdict, name, start, took)
                try:
                    results[i] = await self._decide(work)
                except SemrouteError as error:
                    results[i] = error
        return [results[i] for i in range(len(asks))]

    async def complete(self, ask: Ask) -> AsyncGenerator[Decision | CompletionEvent, None]:
        """The decision, then what comes of it; a ``Finish`` is last, or an error is raised."""
        options = ask.options or Options()
        ask = Ask(ask.query, ask.profile, ask.preferences, options)
        decision = await self.decide(ask)
        yield decision
        profile = self.profiles.get(decision.profile)
        completion = Completion(
            decision=decision,
            query=ask.query,
            options=options,
            profile=profile,
            screen_again=lambda c: self._screen_again(c, ask, profile, decision.route),
            max_cost=_max_cost(ask, profile),
            backends=self.backends,
            ledger=self.ledger,
        )
        async with contextlib.aclosing(completion.events()) as events:
            async for event in events:
                yield event

    async def embed(self, texts: Sequence[str], profile: str = "") -> tuple[Vectors, str]:
        """The vectors of ``texts`` by the profile's encoder, and the encoder's name."""
        return await self.classifiers.embed(self.profiles.get(profile).encoder, texts)

    async def activate(self, name: str) -> None:
        """Make a profile the active one, its classifier being ready first."""
        profile = self.profiles.get(name)
        await self.classifiers.warm(profile.encoder)
        await self.backends.probe(profile.backends.values())
        self.profiles.activate(name)

    @staticmethod
    def _check(ask: Ask, profile: Profile) -> None:
        wanted = ask.preferences.model
        if wanted and wanted not in profile.models:
            raise UnknownModelError(wanted, profile.name, profile.models)
        if ask.preferences.objective not in {None, Objective.COST}:
            raise InvalidRequestError(
                (
                    "preferences.objective",
                    f"{ask.preferences.objective} needs measured figures, which this version "
                    "does not keep; leave it unset or say cost",
                )
            )

    async def _decide(self, work: _Work) -> Decision:
        ask, profile = work.ask, work.profile
        start = time.perf_counter()
        verdict = work.verdict
        route = profile.route(verdict.task)
        context = await self._context(ask, profile, route)
        models = _models(ask, profile, route, verdict)
        candidates = governance.screen(_ordered(models, ask, context), context)
        if not any(c.admitted for c in candidates):
            raise self._denied(route, candidates, profile)
        now = time.perf_counter()
        elapsed = Elapsed(
            work.took - verdict.search_seconds,
            verdict.search_seconds,
            now - start,
            now - work.started,
        )
        return Decision(
            id=uuid.uuid4().hex,
            decided_at=datetime.now(UTC),
            profile=profile.name,
            profile_revision=profile.revision,
            utterances_revision=self.classifiers.utterances.revision,
            encoder=work.encoder,
            classification=verdict,
            route=route.task,
            candidates=candidates,
            reason=explain(verdict, route, candidates, named=bool(ask.preferences.model)),
            elapsed=elapsed,
        )

    async def _context(self, ask: Ask, profile: Profile, route: Route) -> governance.Context:
        options = ask.options
        needs = ask.query.needs | ask.preferences.required | (options.needs if options else set())
        limit = profile.limits.monthly
        spent = await self._spent(profile) if limit is not None else 0
        return governance.Context(
            profile=profile,
            route=route,
            caller=ask.query.caller,
            needs=frozenset(needs),
            prompt_tokens=ask.query.prompt_tokens,
            max_tokens=(options.sampling.max_tokens if options else None) or route.max_tokens,
            max_cost=_max_cost(ask, profile),
            budget_left=None if limit is None else limit - spent,
            has_credentials=lambda model: model.backend.provider.has_credentials(),
            is_absent=self.backends.is_absent,
        )

    async def _spent(self, profile: Profile) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.ledger.thread, self.ledger.spent, profile.name)

    async def _screen_again(
        self, candidate: Candidate, ask: Ask, profile: Profile, route: str
    ) -> Candidate:
        """Governance's word with the facts as they are now; asked before every attempt."""
        context = await self._context(ask, profile, profile.routes[route])
        return governance.judge(candidate, context)

    def _denied(
        self, route: Route, candidates: tuple[Candidate, ...], profile: Profile
    ) -> SemrouteError:
        budget = governance.monthly_limit.__name__
        if any(c.rule == budget and c.estimated_cost is not None for c in candidates):
            return self.ledger.exceeded(profile.name)
        return NoCompliantModelError(route.task, candidates)


@dataclass(frozen=True, slots=True)
class _Work:
    """An ask on its way, with what is known of it so far. Times are seconds."""

    ask: Ask
    profile: Profile
    verdict: Classification
    encoder: str
    started: float
    took: float


def _asked(ask: Ask, profile: Profile) -> Asked:
    evidence = EVIDENCE_EXPLAINED if ask.preferences.explain else EVIDENCE
    turn = Turn(ask.query.text, ask.query.previous)
    return Asked(turn, evidence, cascade=profile.cascade != "off")


def _models(
    ask: Ask, profile: Profile, route: Route, verdict: Classification
) -> list[tuple[Model, bool]]:
    """A model that the caller names stands alone; otherwise the row's, and those behind it."""
    if ask.preferences.model:
        return [(profile.models[ask.preferences.model], False)]
    return profile.candidates(route, verdict.tier)


def _ordered(
    models: list[tuple[Model, bool]], ask: Ask, context: governance.Context
) -> list[tuple[Model, bool]]:
    """The written order, or the order of the objective."""
    if ask.preferences.objective is not Objective.COST:
        return models

    def cost(entry: tuple[Model, bool]) -> float:
        estimate = context.estimate(entry[0])
        return float("inf") if estimate is None else estimate

    return sorted(models, key=cost)


def _max_cost(ask: Ask, profile: Profile) -> int | None:
    """The lower of the caller's and the profile's limit, in nano-USD."""
    limits = [ask.preferences.max_cost_nano_usd, profile.limits.max_per_request]
    return min((limit for limit in limits if limit is not None), default=None)


def explain(
    verdict: Classification, route: Route, candidates: Sequence[Candidate], *, named: bool
) -> str:
    """The choice in one sentence for people."""
    chosen = next(c for c in candidates if c.admitted)
    if verdict.basis is Basis.DEFAULTED:
        what = "No task's utterances are near enough, so the default row applies"
    else:
        tier = f" at tier {verdict.tier.word}" if verdict.tier else ""
        what = f"The query is {verdict.task}{tier} (confidence {verdict.confidence:.2f})"
        if route.task != verdict.task:
            what += f", which takes the {route.task} row"
    where = "local" if chosen.model.local else "cloud"
    who = f"{chosen.model.name} ({where}) answers"
    if named:
        return f"{what}; the caller named {chosen.model.name}, and {who}."
    return f"{what}; {who}{_passed_over(candidates)}."


def _passed_over(candidates: Sequence[Candidate]) -> str:
    """Who was denied and why, those with the same reason together."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        if not candidate.admitted:
            by_reason[candidate.reason].append(candidate.model.name)
    denials = [f"{' and '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"; denied: {', '.join(denials)}" if denials else ""
