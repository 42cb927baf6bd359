"""Sessions: what they hold, when they end, and what never crosses from one into another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from semroute_classifier.classifier import Basis, Classification
from semroute_classifier.utterances import Tier
from semroute_service import sessions
from semroute_service.decision import Attempt, ErrorClass, Finish, FinishReason, Outcome, Usage
from semroute_service.errors import UnknownProfileError, UnknownSessionError
from semroute_service.profile import Backend, Model, Profile, ProfileStore, Route, load_providers
from semroute_service.query import Caller, Message, Query, Role, Sensitivity
from semroute_service.sessions import Pin, Sessions

if TYPE_CHECKING:
    from semroute_service.sessions import Session

IDLE = 60.0
SECRET = "session-of-ada"
BACKEND = Backend("here", load_providers()["echo"], "", True, "", Sensitivity.RESTRICTED)
MODELS = {name: Model(name, name, BACKEND, frozenset()) for name in ("home", "sky", "europe")}
ROUTES = {"default": Route("default", {Tier.LOW: ("home",)})}
PROFILE = Profile("test", "", "", "", "hashing", MODELS, ROUTES, {})


@dataclass
class Clock:
    """Tells the time that a test says it is."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Timed:
    """Sessions under a test's own clock."""

    clock: Clock = field(default_factory=Clock)
    sessions: Sessions = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(IDLE, self.clock)

    def enter(self, session_id: str, tenant: str = "", profile: Profile = PROFILE) -> Session:
        return self.sessions.enter(query(session_id, tenant), lambda: profile)

    def after(self, seconds: float) -> Timed:
        self.clock.now += seconds
        return self


@pytest.fixture
def timed() -> Timed:
    return Timed()


def query(session_id: str, tenant: str = "") -> Query:
    return Query((Message(Role.USER, ("hello",)),), Caller(tenant=tenant), session_id)


def verdict(tier: Tier | None, *, in_context: bool = False) -> Classification:
    return Classification(
        "code", tier, 1.0, Basis.MATCHED, (), None, 1.0, "code", tier, in_context=in_context
    )


def finish(*attempts: tuple[str, ErrorClass | None]) -> Finish:
    """An answer by the model of the last attempt."""
    made = tuple(
        Attempt(
            MODELS[name],
            datetime.now(UTC),
            Outcome.FAILED if error else Outcome.SUCCEEDED,
            0.1,
            error,
        )
        for name, error in attempts
    )
    return Finish(FinishReason.STOP, made[-1].model, Usage(), 0, made)


# ---- who shares a session


def test_requests_with_one_id_share_a_session(timed: Timed) -> None:
    """The first request's profile is everyone's; what else is active by then does not matter."""
    other = Profile("other", "", "", "", "hashing", MODELS, ROUTES, {})
    first = timed.enter("s")
    assert timed.enter("s", profile=other) is first
    assert (first.profile, first.requests) == (PROFILE, 2)
    assert timed.enter("t", profile=other).profile is other
    assert len(timed.sessions) == 2


def test_tenants_do_not_share(timed: Timed) -> None:
    """The same id from two tenants is two sessions, and neither can end the other's."""
    mine, theirs = timed.enter("s", "mine"), timed.enter("s", "theirs")
    assert mine is not theirs
    mine.pin_first("code", "home")
    assert theirs.pin("code") is None
    with pytest.raises(UnknownSessionError):
        timed.sessions.end("", "s")
    assert timed.sessions.end("theirs", "s")[0] is theirs
    assert timed.enter("s", "mine") is mine


def test_requests_without_an_id_share_nothing(timed: Timed) -> None:
    """Each has a session of its own, and none of them is kept."""
    assert timed.enter("") is not timed.enter("")
    assert len(timed.sessions) == 0
    with pytest.raises(UnknownSessionError):
        timed.sessions.end("", "")


def test_a_session_needs_a_profile_to_begin(timed: Timed) -> None:
    """A first request that names an unknown profile begins no session."""
    store = ProfileStore({"test": PROFILE}, "test")
    with pytest.raises(UnknownProfileError):
        timed.sessions.enter(query("s"), lambda: store.get("nope"))
    assert len(timed.sessions) == 0


# ---- when a session ends


def test_an_idle_session_ends(timed: Timed) -> None:
    """Every use begins its time anew; after the limit the id names a session that is new."""
    first = timed.enter("s")
    assert timed.after(IDLE).enter("s") is first
    assert timed.after(IDLE).enter("s") is first
    assert len(timed.after(IDLE).sessions) == 1
    assert len(timed.after(0.001).sessions) == 0
    assert timed.enter("s") is not first


def test_idle_sessions_end_without_their_ids(timed: Timed) -> None:
    """Whatever comes next lets go of all that are idle, and of no other."""
    for name in "abc":
        timed.enter(name)
    timed.after(IDLE / 2).enter("b")
    timed.after(IDLE / 2 + 1).enter("d")
    assert len(timed.sessions) == 2
    with pytest.raises(UnknownSessionError):
        timed.sessions.end("", "a")
    assert timed.sessions.end("", "b")[0].requests == 2


def test_a_session_that_answers_is_not_idle(timed: Timed) -> None:
    """An answer that takes longer than the limit keeps its session, and the limit begins after."""
    long, short = timed.enter("long"), timed.enter("short")
    with timed.sessions.answering(query("long"), long):
        assert len(timed.after(3 * IDLE).sessions) == 1
        timed.after(IDLE - 1)
    assert timed.after(IDLE).enter("long") is long
    assert timed.enter("short") is not short


def test_a_session_that_ended_in_mid_answer_stays_ended(timed: Timed) -> None:
    """The answer's end neither brings it back nor touches one that has begun since."""
    session = timed.enter("s")
    with timed.sessions.answering(query("s"), session):
        timed.sessions.end("", "s")
    assert len(timed.sessions) == 0
    with timed.sessions.answering(query("s"), session):
        timed.enter("s")
        timed.after(IDLE)
    assert len(timed.after(1).sessions) == 0


def test_sessions_are_bounded(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one more begins than there may be, the one that was idle longest ends."""
    monkeypatch.setattr(sessions, "MOST", 3)
    opened = {name: timed.after(1).enter(name) for name in "abc"}
    timed.after(1).enter("a")
    timed.after(1).enter("d")
    assert len(timed.sessions) == 3
    assert timed.enter("a") is opened["a"]
    with pytest.raises(UnknownSessionError):
        timed.sessions.end("", "b")


def test_the_end_says_what_it_came_to(timed: Timed) -> None:
    """Duration and counts are told once; a second end finds nothing, and does not repeat the id."""
    session = timed.enter(SECRET)
    session.cost, session.errors = 7, 1
    timed.after(10).enter(SECRET)
    ended, seconds = timed.after(5).sessions.end("", SECRET)
    assert ended is session
    assert (ended.requests, ended.errors, ended.cost, seconds) == (2, 1, 7, 15)
    with pytest.raises(UnknownSessionError) as caught:
        timed.sessions.end("", SECRET)
    assert SECRET not in str(caught.value)
    assert "over 60 s" in str(caught.value)


# ---- pins


def test_the_first_pin_of_a_task_stands(timed: Timed) -> None:
    """Each task has its own, and so have queries near to no task."""
    session = timed.enter("s")
    assert session.pin("code") is None
    for model in ("home", "sky"):
        session.pin_first("code", model)
    session.pin_first(None, "sky")
    assert session.pin("code") == Pin("home")
    assert session.pin(None) == Pin("sky")
    assert session.pin("biomedical") is None


BACKEND_FAILURES = [error for error in ErrorClass if error.name.startswith("PROVIDER_")]


@pytest.mark.parametrize("error", ErrorClass)
def test_only_a_failed_backend_moves_a_pin(timed: Timed, error: ErrorClass) -> None:
    """A denial, a caller's mistake and semroute's own leave the pin where it is."""
    session = timed.enter("s")
    session.pin_first("code", "home")
    session.answered("code", finish(("home", error), ("sky", None)))
    moved = error in BACKEND_FAILURES
    assert session.pin("code") == (Pin("sky", moved_from="home") if moved else Pin("home"))


def test_a_pin_moves_to_who_answered(timed: Timed) -> None:
    """Not to who was tried in between; and a second failure moves it on."""
    session = timed.enter("s")
    session.pin_first("code", "home")
    down = ErrorClass.PROVIDER_CONNECT
    session.answered("code", finish(("home", down), ("sky", down), ("europe", None)))
    assert session.pin("code") == Pin("europe", moved_from="home")
    session.answered("code", finish(("europe", down), ("sky", None)))
    assert session.pin("code") == Pin("sky", moved_from="europe")


@pytest.mark.parametrize(
    "attempts",
    [
        [("home", None)],
        [("home", ErrorClass.PROVIDER_UNAVAILABLE), ("home", None)],
        [("sky", ErrorClass.PROVIDER_UNAVAILABLE), ("europe", None)],
    ],
    ids=["answered", "answered after a retry", "another failed"],
)
def test_a_pin_whose_model_did_not_fail_stays(
    timed: Timed, attempts: list[tuple[str, ErrorClass | None]]
) -> None:
    """Only the pinned model's own failure, and another's whole answer, move it."""
    session = timed.enter("s")
    session.pin_first("code", "home")
    session.pin_first(None, "europe")
    session.answered("code", finish(*attempts))
    assert session.pin("code") == Pin("home")
    assert session.pin(None) == Pin("europe")


def test_an_answer_in_an_unpinned_task_pins_nothing(timed: Timed) -> None:
    """A model that the caller named may fail over nothing, and leaves no trace."""
    session = timed.enter("s")
    session.answered("code", finish(("home", ErrorClass.PROVIDER_TIMEOUT), ("sky", None)))
    assert session.pin("code") is None


# ---- tiers


def test_the_tier_does_not_drop_on_a_follow_up(timed: Timed) -> None:
    """A follow-up is at least as hard as what it follows; what stands alone is judged alone."""
    session = timed.enter("s")
    turns = [
        (Tier.HIGH, False, Tier.HIGH),
        (Tier.LOW, True, Tier.HIGH),
        (Tier.LOW, True, Tier.HIGH),
        (None, False, None),
        (Tier.LOW, True, Tier.HIGH),
        (Tier.LOW, False, Tier.LOW),
        (Tier.MEDIUM, True, Tier.MEDIUM),
    ]
    held = [session.hold(verdict(tier, in_context=context)).tier for tier, context, _ in turns]
    assert held == [expected for _, _, expected in turns]
    assert timed.enter("t").hold(verdict(Tier.LOW, in_context=True)).tier is Tier.LOW
