"""Sessions: what holds still between requests that belong together.

A session is named by its id within its tenant: two tenants that use the same id have two
sessions. It begins with the first request that names it and ends when somebody ends it, when it
has been idle for too long, or with the server. Until then

- it runs on the profile that was current, or was named, at its first request, and on that revision
  of it, whatever an operator activates meanwhile. A request that names another profile is refused;
- it runs on one utterance set, since a server reads its utterances once, when it starts;
- each task keeps the model that it first got, whatever the tier: a session whose first question
  was easy asks the same model when a hard one follows. Queries near to no task are a task of their
  own here. Decisions pin as answers do, and of two first requests at the same moment one wins.

A pin says who is tried first, never who may answer: governance screens the pinned model like any
other, for every request and at every attempt. Where it is denied the next admitted one answers
that request, and the pin stays. Only a backend that failed moves the pin, to the model that gave
the whole answer in its place. An objective does not override a pin; a model that the caller names
stands beside it and changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from semroute_service.errors import UnknownSessionError
from semroute_service.profile import DEFAULT_ROUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from semroute_classifier.classifier import Classification
    from semroute_classifier.utterances import Tier
    from semroute_service.decision import Finish
    from semroute_service.profile import Profile
    from semroute_service.query import Query

MOST = 10_000
"""Sessions that may be open; where one more begins, the one that was idle longest ends."""

_Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pin:
    """The model that a session uses for a task. ``moved_from`` is the one that it used before,
    until its backend failed; empty where none did."""

    model: str
    moved_from: str = ""


@dataclass(slots=True, eq=False)
class Session:
    """What one session runs on, and what it came to. Times are those of ``Sessions``."""

    profile: Profile
    began: float
    used: float
    requests: int = 0
    errors: int = 0
    cost: int = 0
    """In nano-USD, failed attempts included."""
    answering: int = 0
    """Answers that are being made at this moment."""
    _pins: dict[str, Pin] = field(default_factory=dict)
    _tier: Tier | None = None

    def hold(self, verdict: Classification) -> Classification:
        """``verdict``, not below the last tier where it was read in context.

        "Shorter, please" looks easy, and is as hard as what it follows.
        """
        if verdict.tier is None:
            return verdict
        tier = verdict.tier
        if verdict.in_context:
            tier = max(tier, self._tier or tier)
        self._tier = tier
        return verdict if tier is verdict.tier else replace(verdict, tier=tier)

    def pin(self, task: str | None) -> Pin | None:
        """What ``task`` is pinned to, if it is; None stands for queries near to no task."""
        return self._pins.get(task or DEFAULT_ROUTE)

    def pin_first(self, task: str | None, model: str) -> None:
        """Pin ``task`` to ``model``, unless it is pinned already."""
        self._pins.setdefault(task or DEFAULT_ROUTE, Pin(model))

    def answered(self, task: str | None, finish: Finish) -> None:
        """Move the pin of ``task`` to who answered, if the pinned model's backend failed."""
        pin = self.pin(task)
        failed = {a.model.name for a in finish.attempts if a.backend_failed}
        if pin and pin.model in failed and pin.model != finish.model.name:
            self._pins[task or DEFAULT_ROUTE] = Pin(finish.model.name, moved_from=pin.model)


class Sessions:
    """The sessions that are open. Lives on one event loop."""

    def __init__(self, idle_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._idle = idle_seconds
        self._now = now
        self._open: OrderedDict[_Key, Session] = OrderedDict()
        """In the order of their last use, so that those to end stand first."""

    def __len__(self) -> int:
        self._expire()
        return len(self._open)

    def profiles(self) -> list[Profile]:
        """Those that open sessions run on, each once."""
        return list({id(s.profile): s.profile for s in self._open.values()}.values())

    def enter(self, query: Query, profile: Callable[[], Profile]) -> Session:
        """The session of ``query``, for one request more; one that begins runs on ``profile()``.

        A query without a session id has a session of its own, which ends with it.
        """
        self._expire()
        now = self._now()
        if not query.session_id:
            return Session(profile(), now, now)
        key = (query.caller.tenant, query.session_id)
        session = self._open.get(key)
        if session is None:
            session = self._open[key] = Session(profile(), now, now)
            if len(self._open) > MOST:
                self._open.popitem(last=False)
        self._touch(key, session)
        session.requests += 1
        return session

    @contextlib.contextmanager
    def answering(self, query: Query, session: Session) -> Iterator[None]:
        """While an answer is made its session is not idle."""
        session.answering += 1
        try:
            yield
        finally:
            session.answering -= 1
            key = (query.caller.tenant, query.session_id)
            if self._open.get(key) is session:  # it may have been ended meanwhile
                self._touch(key, session)

    def end(self, tenant: str, session_id: str) -> tuple[Session, float]:
        """End a session; returns it and its seconds. Raises ``UnknownSessionError``.

        What it is still answering goes on and counts no more; a request that names it begins
        another.
        """
        self._expire()
        session = self._open.pop((tenant, session_id), None)
        if session is None:
            raise UnknownSessionError(self._idle)
        return session, self._now() - session.began

    def _touch(self, key: _Key, session: Session) -> None:
        session.used = self._now()
        self._open.move_to_end(key)

    def _expire(self) -> None:
        now = self._now()
        while self._open:
            key, session = next(iter(self._open.items()))
            if now - session.used <= self._idle:
                return
            if session.answering:
                self._touch(key, session)
            else:
                del self._open[key]
