"""A router whose classifier and backends follow a script, and which is watched at every attempt.

What an attempt may be is said here a second time: no code of governance is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from hypothesis import strategies as st

from random_profiles import CALLERS, MODELS, MONEY, REASONING
from semroute_classifier.classifier import Basis, Classification
from semroute_classifier.utterances import Tier
from semroute_service import schedule
from semroute_service.backends import Availability, BackendError, End
from semroute_service.decision import Attempt, Decision, Delta, ErrorClass, FinishReason, Restart
from semroute_service.errors import SemrouteError
from semroute_service.ledger import Ledger
from semroute_service.profile import ProfileStore
from semroute_service.proof import permitted
from semroute_service.query import (
    Caller,
    Capability,
    Message,
    Objective,
    Options,
    Preferences,
    Query,
    Role,
    Sampling,
)
from semroute_service.records import Records
from semroute_service.router import Ask, Router
from semroute_service.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from semroute_service.backends import ChatRequest, Event
    from semroute_service.profile import Model, Profile, Route

OFTEN = [ErrorClass.PROVIDER_UNAVAILABLE, ErrorClass.PROVIDER_INTERRUPTED]
KEYS = ("OPENAI_API_KEY", "DEEPSEEK_API_KEY", "MISTRAL_API_KEY")
_SILENT_LENGTH = 4096
"""How long an answer is taken to be where nobody says."""


@dataclass(frozen=True)
class Step:
    """What one call to a backend comes to: deltas, then how it ends (None is well), and what
    happens elsewhere meanwhile."""

    deltas: int = 0
    error: ErrorClass | None = None
    spent: int = 0
    keys_go: bool = False
    optional_go: bool = False


@dataclass(frozen=True)
class Script:
    """What every call comes to, in order; those behind the last cannot connect."""

    steps: tuple[Step, ...]
    keys: frozenset[str]
    absent: frozenset[str]


@dataclass(frozen=True)
class Turn:
    """One request, and what the classifier makes of it."""

    task: str
    tier: Tier | None
    caller: Caller
    preferences: Preferences
    options: Options
    session: str

    def variant(self, named: str, *, allow_restart: bool) -> Turn:
        """The same with a model that the caller names, or none, and with restarts or without."""
        return replace(
            self,
            preferences=replace(self.preferences, model=named),
            options=replace(self.options, allow_restart=allow_restart),
        )


SCRIPTS = st.builds(
    Script,
    steps=st.lists(
        st.builds(
            Step,
            deltas=st.sampled_from([0, 1, 1]),
            error=st.sampled_from([*[None] * 4, *ErrorClass, *OFTEN * 5]),
            spent=st.sampled_from([0, 0, 10**5, 10**8, 10**12]),
            keys_go=st.sampled_from([False, False, True]),
            optional_go=st.sampled_from([False, False, True]),
        ),
        min_size=4,
        max_size=8,
    ).map(tuple),
    keys=st.sampled_from([frozenset(KEYS), frozenset(KEYS), frozenset(KEYS[:1])]),
    absent=st.sampled_from([frozenset(), frozenset(), frozenset(MODELS)]),
)
TURNS = st.builds(
    Turn,
    task=st.sampled_from(["biomedical", "code_generation"]),
    tier=st.none() | st.sampled_from(Tier),
    caller=CALLERS
    | st.builds(Caller, local_only=st.booleans())
    | st.builds(Caller, tenant=st.sampled_from(["", "clinic"])),
    preferences=st.builds(
        Preferences,
        objective=st.none() | st.sampled_from(Objective),
        max_cost_nano_usd=MONEY,
        required=st.sampled_from([frozenset(), frozenset(), frozenset({Capability.TOOLS})]),
    ),
    options=st.builds(
        Options,
        sampling=st.builds(
            Sampling,
            temperature=st.sampled_from([None, 0.0]),
            max_tokens=st.none() | st.sampled_from([1, 20]),
        ),
    ),
    session=st.sampled_from(["", "s", "s", "s"]),
)


class Scene:
    """Stands for the classifiers and the backends of a router, and watches what reaches them."""

    def __init__(self, profile: Profile, script: Script, ledger: Ledger) -> None:
        self.profile = profile
        self.ledger = ledger
        self.steps = list(script.steps)
        self.absent = set(script.absent)
        self.turn: Turn
        self.costs: list[int] = []
        self.tally: Counter[str] = Counter()
        self.utterances = SimpleNamespace(revision="")
        self.availability = Availability()

    async def classify(self, _: Any, asked: list[Any]) -> tuple[list[Classification], str]:
        turn = self.turn
        verdict = Classification(
            turn.task, turn.tier, 1.0, Basis.MATCHED, (), None, 1.0, turn.task, turn.tier
        )
        return [verdict for _ in asked], "scripted"

    def is_absent(self, model: Model) -> bool:
        return model.backend.optional and model.name in self.absent

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        self.watch(request.model)
        step = self.steps.pop(0) if self.steps else Step(error=ErrorClass.PROVIDER_CONNECT)
        for _ in range(step.deltas):
            yield Delta(text="well")
        if step.spent:
            other = self.ledger.reserve(self.profile.name, "", "x", step.spent, None)
            self.ledger.settle(other, step.spent)
        if step.keys_go:
            for key in KEYS:
                os.environ.pop(key, None)
        if step.optional_go:
            self.absent.update(MODELS)
        if step.error:
            raise BackendError(step.error, "scripted")
        yield End(FinishReason.STOP)

    def watch(self, model: Model) -> None:
        """An attempt is made at this moment: it must be lawful, and it must be paid for."""
        turn, route = self.turn, self.route
        fallback = self.watch_policy(model)
        assert model.capabilities >= turn.preferences.required | {Capability.CHAT}
        asked = turn.options.sampling.max_tokens or route.max_tokens
        prompt = query_of(turn).prompt_tokens
        assert model.context is None or model.context >= prompt + (asked or 0)
        provider = model.backend.provider
        assert provider.locality == "local" or any(os.environ.get(k) for k in provider.key_env)
        reasons = model.id == REASONING.get(provider.id)
        assert not reasons or turn.options.sampling.temperature is None
        assert not (model.backend.optional and model.name in self.absent)
        self.watch_money(model, prompt, asked or _SILENT_LENGTH)
        self.tally["attempt"] += 1
        self.tally["takes no temperature"] += reasons
        self.tally["fallback"] += fallback
        self.tally["named"] += bool(turn.preferences.model)

    @property
    def route(self) -> Route:
        return self.profile.routes.get(self.turn.task, self.profile.routes["default"])

    def watch_policy(self, model: Model) -> bool:
        """``model`` is admitted: the profile must permit it. Returns whether it is a fallback."""
        named = self.turn.preferences.model
        first = {named} if named else set(self.route.primaries(self.turn.tier))
        fallback = model.name in self.route.fallback_chain and model.name not in first
        assert not named or model.name == named
        assert model.name in permitted(self.profile, self.route, self.turn.caller, fallback)
        return fallback

    def watch_money(self, model: Model, prompt: int, length: int) -> None:
        limits = [self.turn.preferences.max_cost_nano_usd, self.profile.limits.max_per_request]
        limit = min((one for one in limits if one is not None), default=None)
        month = self.profile.limits.monthly
        if model.price is None:
            assert model.backend.local or (limit is None and month is None)
            return
        nano = prompt * model.price.input + length * model.price.output
        cost = (nano + 999_999) // 1_000_000
        assert limit is None or cost == 0 or sum(self.costs) + cost <= limit
        assert month is None or cost == 0 or self.ledger.spent(self.profile.name) <= month


def query_of(turn: Turn) -> Query:
    return Query((Message(Role.USER, ("well?",)),), turn.caller, turn.session)


def play(profile: Profile, script: Script, turns: list[Turn]) -> Counter[str]:
    """Route the turns; raises ``AssertionError`` at an attempt that should not have been made."""
    keys = {key: "k" if key in script.keys else "" for key in KEYS}
    with (
        mock.patch.dict(os.environ, keys),
        mock.patch.object(schedule, "_FIRST_BACKOFF_SECONDS", 0.0),
        contextlib.closing(Ledger()) as ledger,
    ):
        scene = Scene(profile, script, ledger)
        asyncio.run(_play(scene, turns))
    return scene.tally


async def _play(scene: Scene, turns: list[Turn]) -> None:
    store = ProfileStore({scene.profile.name: scene.profile}, scene.profile.name)
    stand_in = cast("Any", scene)
    router = Router(store, stand_in, stand_in, scene.ledger, Sessions(3600), Records())
    for turn in turns:
        scene.turn = turn
        scene.costs.clear()
        ask = Ask(query_of(turn), "", turn.preferences, turn.options)
        with contextlib.suppress(SemrouteError):
            async for event in router.complete(ask):
                _note(event, scene)


def _note(event: object, scene: Scene) -> None:
    match event:
        case Decision():
            scene.tally["pinned"] += event.pinned
            for candidate in event.admitted:
                scene.watch_policy(candidate.model)
        case Attempt():
            scene.costs.append(event.cost)
            denied = event.error_class is ErrorClass.POLICY_DENIED
            scene.tally["denied between attempts"] += denied
        case Restart():
            scene.tally["restart"] += 1
