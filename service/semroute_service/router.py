"""From a query to a decision, and from a decision to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from semroute_classifier.classifier import Turn
from semroute_service import governance
from semroute_service.attempts import Attempts
from semroute_service.classifying import Asked
from semroute_service.completion import Completion
from semroute_service.decision import Decision, Elapsed, Finish, in_turn
from semroute_service.embedding import Embedder
from semroute_service.errors import (
    InvalidRequestError,
    SemrouteError,
    UnknownModelError,
)
from semroute_service.query import Options, Preferences
from semroute_service.ranking import pace_of, rank
from semroute_service.reason import explain
from semroute_service.records import Record
from semroute_service.screening import Screening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from semroute_classifier.classifier import Classification
    from semroute_classifier.encoders import EncoderSpec
    from semroute_service.backends import BackendPool
    from semroute_service.classifying import ClassifierPool
    from semroute_service.completion import CompletionEvent
    from semroute_service.decision import Candidate
    from semroute_service.embedding import EmbedAsk, Embeddings
    from semroute_service.ledger import Ledger
    from semroute_service.profile import Model, Profile, ProfileStore, Route
    from semroute_service.query import Query
    from semroute_service.records import Records
    from semroute_service.sessions import Session, Sessions

EVIDENCE = 5
EVIDENCE_EXPLAINED = 20
_YIELD_EVERY = 16
"""Decisions of a batch between which other requests get their turn."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a decision. ``options`` are None where no completion is wanted.

    ``deadline`` is when the caller will have no more use for the answer, of ``time.monotonic``.
    """

    query: Query
    profile: str = ""
    preferences: Preferences = field(default_factory=Preferences)
    options: Options | None = None
    deadline: float | None = None


class Router:
    """The core: knows no wire. Lives on one event loop."""

    def __init__(
        self,
        profiles: ProfileStore,
        classifiers: ClassifierPool,
        backends: BackendPool,
        ledger: Ledger,
        sessions: Sessions,
        records: Records,
    ) -> None:
        self.profiles = profiles
        self.classifiers = classifiers
        self.backends = backends
        self.ledger = ledger
        self.sessions = sessions
        self.records = records
        self._screening = Screening(backends, ledger)
        self._embedder = Embedder(profiles, classifiers, backends, ledger)

    async def decide(self, ask: Ask) -> Decision:
        """The decision on ``ask``; raises ``SemrouteError``."""
        result = (await self.decide_many([ask]))[0]
        if isinstance(result, SemrouteError):
            raise result
        return result

    async def decide_many(self, asks: Sequence[Ask]) -> list[Decision | SemrouteError]:
        """One result for each ask, in order; those with the same encoder share its passes."""
        records = [Record(completes=False) for _ in asks]
        with self.records.keep(*records):
            await self._decide_all(asks, records)
        return [_result(record) for record in records]

    async def _decide_all(self, asks: Sequence[Ask], records: Sequence[Record]) -> None:
        """Give every record the decision on its ask, or the error."""
        by_encoder: defaultdict[EncoderSpec, list[_Work]] = defaultdict(list)
        for ask, record in zip(asks, records, strict=True):
            try:
                session = self.sessions.enter(ask.query, partial(self.profiles.get, ask.profile))
                record.session = session
                self._check(ask, session.profile)
            except SemrouteError as error:
                record.error = error
            else:
                by_encoder[session.profile.encoder].append(_Work(ask, record, session))
        for encoder, works in by_encoder.items():
            start = time.perf_counter()
            asked = [_asked(work) for work in works]
            verdicts, name = await self.classifiers.classify(encoder, asked)
            took = time.perf_counter() - start
            for row, work in enumerate(works):
                if row and row % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                verdict = work.session.hold(verdicts[row])
                try:
                    work.record.decision = await self._decide(work, verdict, name, took)
                except SemrouteError as error:
                    work.record.error = error

    async def complete(self, ask: Ask) -> AsyncGenerator[Decision | CompletionEvent, None]:
        """The decision, then what comes of it; a ``Finish`` is last, or an error is raised."""
        ask = ask if ask.options else replace(ask, options=Options())
        record = Record(completes=True)
        with self.records.keep(record):
            await self._decide_all([ask], [record])
            decision = _result(record)
            if isinstance(decision, SemrouteError):
                raise decision
            yield decision
            session = record.session
            assert session
            with self.sessions.answering(ask.query, session):
                answer = self._completion(ask, record, decision)
                record.attempts = answer.attempts.made
                async with contextlib.aclosing(answer.events()) as events:
                    async for event in events:
                        if isinstance(event, Finish):
                            record.finish = event
                            session.answered(decision.classification.task, event)
                        yield event

    def _completion(self, ask: Ask, record: Record, decision: Decision) -> Completion:
        """What is to come of ``decision``, on the profile that it was made with."""
        assert ask.options
        assert record.case
        return Completion(
            decision=decision,
            query=ask.query,
            options=ask.options,
            profile=decision.profile,
            attempts=Attempts(record.case, self._screening, self.ledger),
            backends=self.backends,
            deadline=ask.deadline,
        )

    async def embed(self, ask: EmbedAsk) -> Embeddings:
        """The vectors of texts, and who made them; raises ``SemrouteError``."""
        return await self._embedder.embed(ask)

    async def activate(self, name: str) -> Profile:
        """Make a profile the active one, its classifier being ready first; returns the one
        before. Sessions that are open stay on theirs."""
        profile = self.profiles.get(name)
        await self.classifiers.warm(profile.encoder)
        await self.backends.warm(profile)
        return self.profiles.activate(name)

    @staticmethod
    def _check(ask: Ask, profile: Profile) -> None:
        if ask.profile and ask.profile != profile.name:
            what = f"the session runs on {profile.name}; name that or none, or end the session"
            raise InvalidRequestError(("profile", what))
        wanted = ask.preferences.model
        if wanted and wanted not in profile.models:
            raise UnknownModelError(wanted, profile.name, profile.models)

    async def _decide(
        self, work: _Work, verdict: Classification, encoder: str, took: float
    ) -> Decision:
        """``took`` is how long the classification was, in seconds."""
        ask, session = work.ask, work.session
        profile = session.profile
        start = time.perf_counter()
        route = profile.route(verdict.task)
        case = work.record.case = _case(ask, profile, route)
        context = await self._screening.context(case)
        # From here on nothing is awaited: no other request of the session can pin in between.
        named = bool(ask.preferences.model)
        pin = None if named else session.pin(verdict.task)
        models = _models(ask, profile, route, verdict)
        if pin:
            models = _with_pinned(models, profile.models[pin.model])
        objective = None if named else ask.preferences.objective or profile.behavior.objective
        candidates = self._screening.screen(models, context)
        if objective:
            pace = partial(pace_of, availability=self.backends.availability)
            # A session would keep the model that it was only meant to try.
            explore = not ask.query.session_id
            candidates = rank(candidates, objective, context.max_tokens, pace, explore=explore)
        if pin:
            candidates = _pinned_first(candidates, pin.model)
        chosen = next((c.model.name for c in in_turn(candidates)), None)
        if chosen is None:
            raise self._screening.denied(case, candidates)
        if not named:
            session.pin_first(verdict.task, chosen)
        now = time.perf_counter()
        pinned = pin is not None and pin.model == chosen
        return Decision(
            id=uuid.uuid4().hex,
            decided_at=datetime.now(UTC),
            profile=profile,
            utterances_revision=self.classifiers.utterances.revision,
            encoder=encoder,
            classification=verdict,
            route=route.task,
            candidates=candidates,
            reason=explain(verdict, route, candidates, objective, named=named, pin=pin),
            elapsed=Elapsed(
                embed=took - verdict.search_seconds,
                search=verdict.search_seconds,
                policy=now - start,
                total=now - work.record.started,
            ),
            objective=objective,
            pinned=pinned,
            pin_moved_from=pin.moved_from if pin and pinned else "",
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """An ask on its way, in its session."""

    ask: Ask
    record: Record
    session: Session


def _case(ask: Ask, profile: Profile, route: Route) -> governance.Case:
    options = ask.options
    needs = ask.query.needs | ask.preferences.required | (options.needs if options else set())
    return governance.Case(
        profile=profile,
        route=route,
        caller=ask.query.caller,
        needs=frozenset(needs),
        parameters=options.parameters if options else frozenset(),
        prompt_tokens=ask.query.prompt_tokens + (options.prompt_tokens if options else 0),
        max_tokens=(options.sampling.max_tokens if options else None) or route.max_tokens,
        max_cost=_max_cost(ask, profile),
    )


def _asked(work: _Work) -> Asked:
    query = work.ask.query
    evidence = EVIDENCE_EXPLAINED if work.ask.preferences.explain else EVIDENCE
    turn = Turn(query.text, query.previous)
    return Asked(turn, evidence, cascade=work.session.profile.cascade != "off")


def _result(record: Record) -> Decision | SemrouteError:
    if record.decision:
        return record.decision
    assert isinstance(record.error, SemrouteError)
    return record.error


def _models(
    ask: Ask, profile: Profile, route: Route, verdict: Classification
) -> list[tuple[Model, bool]]:
    """A model that the caller names stands alone; otherwise the row's, and those behind it."""
    if ask.preferences.model:
        return [(profile.models[ask.preferences.model], False)]
    return profile.candidates(route, verdict.tier)


def _with_pinned(models: list[tuple[Model, bool]], pinned: Model) -> list[tuple[Model, bool]]:
    """What the row says of ``pinned`` stands: a fallback is screened as one, pinned or not. One
    that the row does not name at this tier was the first choice at another."""
    named = any(model is pinned for model, _ in models)
    return models if named else [(pinned, False), *models]


def _pinned_first(candidates: tuple[Candidate, ...], pinned: str) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda candidate: candidate.model.name != pinned))


def _max_cost(ask: Ask, profile: Profile) -> int | None:
    """The lower of the caller's and the profile's limit, in nano-USD."""
    limits = [ask.preferences.max_cost_nano_usd, profile.limits.max_per_request]
    return min((limit for limit in limits if limit is not None), default=None)
