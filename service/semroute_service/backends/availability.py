"""What is known of backends and models at this moment: one view, fed by calls and by checks.

Every call goes through a ``Call``, and how it ends counts for its model. The model's breaker
watches for failures; an upstream that asks to be left alone for a while is; a key that was refused
is not used again for long, nor is a model that the server does not know. Health checks tell of
servers in the building before a call finds out.

What keeps a call from being let through (``begin``) is one thing, what only speaks against asking
(``why_not``) another: a server that did not answer its last check is asked after all others, and
still asked where nothing else is left.

Models and backends are known by their address, not by the profile that names them: two profiles
that name the same model on the same server share what is known of it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from semroute_service.backends.breaker import Breaker, Circuit
from semroute_service.backends.checking import address
from semroute_service.backends.speeds import Speed, Speeds
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from semroute_service.backends.base import BackendError
    from semroute_service.backends.breaker import Ticket
    from semroute_service.backends.checking import Answer
    from semroute_service.profile import Backend, Model

LONG_SECONDS = 600.0
"""How long a key that was refused, or a model that the server does not know, is not asked for."""
LONGEST_COOLING_SECONDS = 3600.0
"""Nobody is believed who asks to be left alone for longer."""
STALE_SECONDS = 300.0
"""After so long without another a check says nothing any more."""
MOST_MODELS = 4096
MOST_BACKENDS = 1024
"""What was used, or checked, longest ago is forgotten where there would be more."""
_INSTANT = 0.001
"""A wait that is shorter is over: clocks are not that exact."""
_log = logging.getLogger(__name__)

_Address: TypeAlias = tuple[str, str]
_Key: TypeAlias = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of one model on one backend. Times are of the clock of ``Availability``."""

    breaker: Breaker = field(default_factory=Breaker)
    speeds: Speeds = field(default_factory=Speeds)
    calls: int = 0
    failures: int = 0
    cool_until: float = -math.inf
    absent_until: float = -math.inf
    answered_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Check:
    """What a backend last said of itself, and when."""

    answer: Answer
    at: float
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What the breaker says, how many seconds it is until a call is let through, how many calls
    there were since the start, and how many of them failed by the backend's own fault."""

    circuit: Circuit
    seconds: float
    calls: int
    failures: int


class _Hindrance(NamedTuple):
    """What keeps a call from being let through, for so many seconds."""

    seconds: float
    why: str
    error_class: ErrorClass


class Call:
    """One call that was let through. The first of ``succeeded``, ``failed`` and ``let_go`` ends
    it; what comes after that is ignored."""

    __slots__ = ("_availability", "_ended", "_known", "_model", "_ticket")

    def __init__(
        self, availability: Availability, model: Model, known: _Known, ticket: Ticket
    ) -> None:
        self._availability = availability
        self._model = model
        self._known = known
        self._ticket = ticket
        self._ended = False

    def first_token(self, seconds: float) -> None:
        """The first delta came so long after the attempt's beginning."""
        self._known.speeds.first_token(self._availability.now(), seconds)

    def silent_for(self, seconds: float) -> None:
        """It was let go without a delta after so long, so it is at least as slow as that."""
        self.first_token(seconds)

    def succeeded(self, completion_tokens: int, seconds_after_first: float) -> None:
        """The backend said how its answer ended."""
        if self._end(success=True):
            now = self._known.answered_at = self._availability.now()
            self._known.speeds.answered(now, completion_tokens, seconds_after_first)

    def failed(self, error: BackendError) -> None:
        """It did not; whose fault that was is the error's class."""
        kind, now = error.error_class, self._availability.now()
        asked = _asked_to_wait(error)
        breaks = kind.is_providers and kind not in _NOT_OF_THE_BREAKER and asked is None
        if not self._end(success=False if breaks else None):
            return
        self._known.failures += kind.is_providers
        if kind is ErrorClass.PROVIDER_CREDENTIALS:
            self._availability.key_refused(self._model.backend)
        elif kind is ErrorClass.PROVIDER_MODEL_NOT_FOUND:
            self._known.absent_until = now + LONG_SECONDS
        elif asked is not None:
            self._known.cool_until = max(self._known.cool_until, now + asked)

    def let_go(self) -> None:
        """The caller left, a hedge lost, policy denied: nobody is blamed."""
        self._end(success=None)

    def _end(self, success: bool | None) -> bool:
        """False where it had ended before."""
        if self._ended:
            return False
        self._ended = True
        breaker, now = self._known.breaker, self._availability.now()
        before = breaker.circuit(now)
        breaker.leave(self._ticket, now, success)
        after = breaker.circuit(now)
        if after is not before and after is not Circuit.HALF_OPEN:
            _tell(self._model, breaker, after, now)
        return True


_NOT_OF_THE_BREAKER = frozenset(
    {ErrorClass.PROVIDER_CREDENTIALS, ErrorClass.PROVIDER_MODEL_NOT_FOUND}
)
"""Failures that say nothing about whether the server is well."""


class Availability:
    """Lives on one event loop. ``begin`` gives a call exactly where ``ready_in`` is 0.0."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._models: OrderedDict[_Key, _Known] = OrderedDict()
        self._checks: OrderedDict[_Address, Check] = OrderedDict()
        self._refused: OrderedDict[_Key, float] = OrderedDict()
        """Until when each key is not used; of keys only a digest is kept."""

    # ---- before a call

    def why_not(self, model: Model) -> str:
        """What is known against asking ``model`` now, in words; empty where nothing is."""
        worst = self._worst(model)
        return worst.why if worst else self._misgiving(model)

    def ready_in(self, model: Model) -> float:
        """Seconds until ``model`` may be asked; 0.0 is now."""
        worst = self._worst(model)
        return worst.seconds if worst else 0.0

    def blame(self, model: Model) -> ErrorClass | None:
        """The class of the failure that keeps ``begin`` from giving a call; None where it would
        give one."""
        worst = self._worst(model)
        return worst.error_class if worst else None

    def cooling(self, model: Model) -> float:
        """Seconds that the upstream itself asked to wait (a rate limit) before ``model`` is asked
        again; 0.0 where it did not. Part of ``ready_in``: it can be waited out, whereas an open
        circuit is not waited for."""
        known = self._models.get(_of(model))
        left = known.cool_until - self.now() if known else 0.0
        return left if left > _INSTANT else 0.0

    def begin(self, model: Model) -> Call | None:
        """A call to ``model``, or None where none is let through now."""
        if self._worst(model):
            return None
        known = self._known(model)
        ticket = known.breaker.enter(self.now())
        if ticket is None:
            return None
        known.calls += 1
        return Call(self, model, known, ticket)

    # ---- what calls have shown

    def standing(self, model: Model) -> Standing:
        """How ``model`` stands, for people to see."""
        known = self._models.get(_of(model)) or _Known()
        circuit = known.breaker.circuit(self.now())
        return Standing(circuit, self.ready_in(model), known.calls, known.failures)

    def speed(self, model: Model) -> Speed | None:
        """How fast ``model`` was of late; None where no call brought a token."""
        known = self._models.get(_of(model))
        return known.speeds.speed(self.now()) if known else None

    def key_refused(self, backend: Backend) -> None:
        """The key in use for ``backend`` is not used there again for long, for any model."""
        now, key = self.now(), _key_in_use(backend)
        self._refused[key] = now + LONG_SECONDS
        self._refused.move_to_end(key)
        while self._refused[next(iter(self._refused))] <= now or len(self._refused) > MOST_BACKENDS:
            self._refused.popitem(last=False)

    # ---- what checks have shown

    def check(self, backend: Backend) -> Check | None:
        """The last check of ``backend``; None where it was not checked of late."""
        check = self._checks.get(address(backend))
        return check if check and self.now() - check.at < STALE_SECONDS else None

    def listed(self, backend: Backend) -> tuple[str, ...]:
        """The models that ``backend`` listed when it was last asked, however long ago; none where
        it did not answer."""
        check = self._checks.get(address(backend))
        return check.answer.models if check else ()

    def waiting(self, backend: Backend) -> int | None:
        """How many requests wait in the server's own queue; None where it does not say."""
        check = self.check(backend)
        return check.answer.waiting if check else None

    def checked(self, backend: Backend, answer: Answer) -> None:
        """Take note of what ``backend`` said of itself just now."""
        where, now = address(backend), self.now()
        before = self._checks.get(where)
        self._checks[where] = Check(answer, now, datetime.now(UTC))
        self._checks.move_to_end(where)
        if len(self._checks) > MOST_BACKENDS:
            self._checks.popitem(last=False)
        if answer.well:
            self._forgive(backend, answer, back=before is not None and not before.answer.well)

    def _forgive(self, backend: Backend, answer: Answer, back: bool) -> None:
        """A model that is listed is not absent. Of a server that is ``back`` after it was not
        well, what was held against it need not hold any longer."""
        for (*where, name), known in self._models.items():
            if tuple(where) == address(backend):
                if answer.models and not (name and answer.lacks(name)):
                    known.absent_until = -math.inf
                if back:
                    known.breaker.hurry(self.now())
        if back:
            self._refused.pop(_key_in_use(backend), None)

    # ---- what it comes to

    def _worst(self, model: Model) -> _Hindrance | None:
        """What keeps a call to ``model`` from being let through for longest."""
        found = [*self._hindrances(model)]
        return max(found) if found else None

    def _hindrances(self, model: Model) -> list[_Hindrance]:
        now, found = self.now(), []
        refused = self._refused.get(_key_in_use(model.backend), now) if self._refused else now
        if refused > now:
            why = f"{model.backend.provider.id} refused the key"
            found.append(_Hindrance(refused - now, why, ErrorClass.PROVIDER_CREDENTIALS))
        known = self._models.get(_of(model))
        if known is None:
            return found
        if known.absent_until > now:
            why, left = (
                f"the server does not know {model.id or 'any model'}",
                known.absent_until - now,
            )
            found.append(_Hindrance(left, why, ErrorClass.PROVIDER_MODEL_NOT_FOUND))
        if cooling := self.cooling(model):
            why = "asked to be left alone for a while"
            found.append(_Hindrance(cooling, why, ErrorClass.PROVIDER_RATE_LIMIT))
        if wait := known.breaker.ready_in(now):
            probed = known.breaker.circuit(now) is Circuit.HALF_OPEN
            why = "is being tried again after failures" if probed else known.breaker.why
            found.append(_Hindrance(wait, why, ErrorClass.PROVIDER_UNAVAILABLE))
        return found

    def _misgiving(self, model: Model) -> str:
        """What the last check says against asking ``model``, which does not keep it from being
        asked. A server without a list says nothing of its models."""
        check = self.check(model.backend)
        if check is None:
            return ""
        if not check.answer.well and not self._answered_since(check, model):
            return f"did not answer its last check: it {check.answer.problem}"
        if model.id and check.answer.models and check.answer.lacks(model.id):
            return f"the server does not list {model.id}"
        return ""

    def _answered_since(self, check: Check, model: Model) -> bool:
        """A busy server may be too late for a check and answer its calls all the same."""
        known = self._models.get(_of(model))
        return known is not None and known.answered_at > check.at

    def _known(self, model: Model) -> _Known:
        key = _of(model)
        known = self._models.get(key)
        if known is None:
            known = self._models[key] = _Known()
            if len(self._models) > MOST_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return known


def _of(model: Model) -> _Key:
    return (*address(model.backend), model.id)


def _key_in_use(backend: Backend) -> _Key:
    """The host, the provider, and a digest of the secrets that the environment holds for it now,
    so that a new key is another one at once."""
    provider = backend.provider
    further = provider.secret_headers.values()
    secrets = [provider.key(), *(os.environ.get(name, "") for name in further)]
    digest = hashlib.sha256("\0".join(secrets).encode(errors="surrogateescape")).hexdigest()
    return urlsplit(backend.url).netloc, provider.id, digest


def _asked_to_wait(error: BackendError) -> float | None:
    """Seconds that a rate limit asked to be left alone; None where it said nothing of use."""
    wait = error.retry_after
    if error.error_class is not ErrorClass.PROVIDER_RATE_LIMIT or wait is None or not wait > 0:
        return None
    return min(wait, LONGEST_COOLING_SECONDS)


def _tell(model: Model, breaker: Breaker, circuit: Circuit, now: float) -> None:
    if circuit is Circuit.CLOSED:
        _log.info("%s on %s answers again", model.name, model.backend.name)
    else:
        seconds = breaker.ready_in(now)
        _log.warning(
            "%s on %s %s; not asked for %.0f s",
            model.name,
            model.backend.name,
            breaker.why,
            seconds,
        )
