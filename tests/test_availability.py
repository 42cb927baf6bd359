"""What is known of backends and models, by a clock that a test moves on.

How a server uses it is shown in test_availability_served.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends import Availability, BackendError
from semroute_service.backends.availability import (
    LONG_SECONDS,
    LONGEST_COOLING_SECONDS,
    MOST_MODELS,
    STALE_SECONDS,
    Call,
)
from semroute_service.backends.breaker import FIRST_COOLDOWN_SECONDS, PROBE_SECONDS, Circuit
from semroute_service.backends.checking import Answer, count
from semroute_service.decision import ErrorClass
from semroute_service.profile import Backend, Model, load_providers
from semroute_service.query import Sensitivity

KINDS = list(ErrorClass)
UNWELL = Answer(problem="cannot be reached", well=False)


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Availability:
    return Availability(clock)


def model(name: str = "m", url: str = "http://127.0.0.1:1/v1", provider: str = "vllm") -> Model:
    backend = Backend(
        name="b",
        provider=load_providers()[provider],
        url=url,
        local=True,
        region="",
        clearance=Sensitivity.RESTRICTED,
    )
    return Model(name=name, id=name, backend=backend, capabilities=frozenset())


def begun(known: Availability, of: Model) -> Call:
    call = known.begin(of)
    assert call
    return call


def fails(
    known: Availability,
    of: Model,
    kind: ErrorClass = ErrorClass.PROVIDER_UNAVAILABLE,
    retry_after: float | None = None,
    times: int = 1,
) -> None:
    for _ in range(times):
        begun(known, of).failed(BackendError(kind, "x", retry_after))


# ---- what calls show


def test_nothing_is_known_at_first(known: Availability) -> None:
    """Whoever was never asked may be asked."""
    assert (known.why_not(model()), known.ready_in(model()), known.blame(model())) == ("", 0, None)
    assert known.speed(model()) is None
    assert known.waiting(model().backend) is None
    assert known.begin(model())


def test_failures_in_a_row_stop_the_calls(known: Availability, clock: Clock) -> None:
    """They are said in words, and for how long; one call is let through then."""
    fails(known, model(), times=3)
    assert known.begin(model()) is None
    assert known.why_not(model()) == "failed 3 times in a row"
    assert known.ready_in(model()) == FIRST_COOLDOWN_SECONDS
    assert known.blame(model()) is ErrorClass.PROVIDER_UNAVAILABLE
    assert known.begin(model("other"))
    clock.time += FIRST_COOLDOWN_SECONDS
    assert (known.why_not(model()), known.ready_in(model())) == ("", 0)
    probe = begun(known, model())
    assert known.why_not(model()) == "is being tried again after failures"
    assert 0 < known.ready_in(model()) <= PROBE_SECONDS
    assert known.begin(model()) is None
    probe.succeeded(7, 0.1)
    assert known.standing(model()).circuit is Circuit.CLOSED


@pytest.mark.parametrize("kind", KINDS)
def test_whose_fault_counts(known: Availability, kind: ErrorClass) -> None:
    """Only failures of the backend's own are counted as its failures, and can stop the calls."""
    for _ in range(12):
        if call := known.begin(model()):
            call.failed(BackendError(kind, "x"))
    assert bool(known.standing(model()).failures) is kind.is_providers
    assert (known.begin(model()) is None) is kind.is_providers
    assert bool(known.why_not(model())) is kind.is_providers


@pytest.mark.parametrize("how", ["let go", "garbage"])
def test_a_probe_that_nobody_ends(known: Availability, clock: Clock, how: str) -> None:
    """Given back it is free at once; forgotten, after a while."""
    fails(known, model(), times=3)
    clock.time += FIRST_COOLDOWN_SECONDS
    probe = begun(known, model())
    assert known.begin(model()) is None
    if how == "let go":
        probe.let_go()
    else:
        del probe
        clock.time += PROBE_SECONDS
    assert known.begin(model())


def test_a_call_ends_once(known: Availability) -> None:
    """What is said of it later is not heard."""
    call = begun(known, model())
    call.succeeded(7, 0.1)
    for _ in range(5):
        call.failed(BackendError(ErrorClass.PROVIDER_CONNECT, "x"))
        call.let_go()
    assert (known.standing(model()).calls, known.standing(model()).failures) == (1, 0)
    assert known.begin(model())


def test_a_rate_limit_is_waited_out(known: Availability, clock: Clock) -> None:
    """Who asked to be left alone is; a later, shorter wish does not shorten the first."""
    calls = [begun(known, model()) for _ in range(2)]
    calls[0].failed(BackendError(ErrorClass.PROVIDER_RATE_LIMIT, "x", 30))
    calls[1].failed(BackendError(ErrorClass.PROVIDER_RATE_LIMIT, "x", 5))
    assert (known.cooling(model()), known.ready_in(model())) == (30, 30)
    assert known.begin(model()) is None
    assert known.blame(model()) is ErrorClass.PROVIDER_RATE_LIMIT
    assert known.why_not(model()) == "asked to be left alone for a while"
    clock.time += 30 - 1e-6  # a sleep may end that early
    assert (known.cooling(model()), known.ready_in(model()), known.why_not(model())) == (0, 0, "")
    assert known.begin(model())


@pytest.mark.parametrize("wish", [None, 0.0, -1.0, math.nan])
def test_a_rate_limit_without_a_wish_is_a_failure(known: Availability, wish: float | None) -> None:
    """It can stop the calls as any other."""
    fails(known, model(), ErrorClass.PROVIDER_RATE_LIMIT, wish, times=3)
    assert known.cooling(model()) == 0
    assert known.begin(model()) is None


def test_a_rate_limit_that_is_waited_out_is_no_failure(known: Availability, clock: Clock) -> None:
    """However often it is met, the circuit stays closed: its time is over when it said."""
    for _ in range(12):
        fails(known, model(), ErrorClass.PROVIDER_RATE_LIMIT, 1.0)
        clock.time += 1
    assert known.standing(model()).circuit is Circuit.CLOSED
    assert known.begin(model())


def test_no_wish_is_for_ever(known: Availability) -> None:
    """An upstream that asks to be left alone without end is believed for an hour."""
    fails(known, model(), ErrorClass.PROVIDER_RATE_LIMIT, math.inf)
    assert known.ready_in(model()) == LONGEST_COOLING_SECONDS


def test_a_refused_key_is_not_used_again(
    known: Availability, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for any model that it is sent for, for long; a new key is another one at once, and the
    same key elsewhere is not touched."""
    monkeypatch.setenv("VLLM_API_KEY", "old")
    fails(known, model(), ErrorClass.PROVIDER_CREDENTIALS)
    other, elsewhere = model("other"), model(url="http://127.0.0.1:2/v1")
    for one in (model(), other):
        assert known.begin(one) is None
        assert known.why_not(one) == "vllm refused the key"
        assert known.ready_in(one) == LONG_SECONDS
        assert known.blame(one) is ErrorClass.PROVIDER_CREDENTIALS
    assert known.standing(other).seconds == LONG_SECONDS
    assert known.begin(elsewhere)
    monkeypatch.setenv("VLLM_API_KEY", "new")
    assert known.why_not(other) == ""
    assert known.begin(other)
    monkeypatch.setenv("VLLM_API_KEY", "old")
    assert known.begin(other) is None
    clock.time += LONG_SECONDS
    assert known.begin(other)
    assert "old" not in repr(vars(known))


def test_an_unknown_model_is_not_asked_for(known: Availability, clock: Clock) -> None:
    """Not until the server lists it, or for long; its other models are."""
    fails(known, model(), ErrorClass.PROVIDER_MODEL_NOT_FOUND)
    assert known.begin(model()) is None
    assert known.why_not(model()) == "the server does not know m"
    assert known.ready_in(model()) == LONG_SECONDS
    assert known.begin(model("other"))
    known.checked(model().backend, Answer(("other",)))
    assert known.begin(model()) is None
    known.checked(model().backend, Answer(("m:latest",)))
    assert known.begin(model())
    fails(known, model(), ErrorClass.PROVIDER_MODEL_NOT_FOUND)
    clock.time += LONG_SECONDS
    assert known.begin(model())


def test_speeds_are_those_of_the_calls(known: Availability) -> None:
    """Each model's own; an answer that broke off says how long its first token took."""
    for seconds in (0.1, 0.3, 0.2):
        call = begun(known, model())
        call.first_token(seconds)
        call.succeeded(21, 0.5)
    broken = begun(known, model())
    broken.first_token(0.4)
    broken.failed(BackendError(ErrorClass.PROVIDER_INTERRUPTED, "x"))
    speed = known.speed(model())
    assert speed
    assert (speed.first_token_p50, speed.first_token_p95, speed.count) == (0.2, 0.4, 4)
    assert speed.tokens_per_second == 40
    assert known.speed(model("other")) is None


def test_profiles_share_what_is_known_of_a_server(known: Availability) -> None:
    """Under whatever name they know the model, and whoever reads the profile again."""
    fails(known, model(), times=3)
    renamed = replace(model(), name="another", backend=replace(model().backend, name="c"))
    assert known.begin(renamed) is None


def test_memory_is_bounded(known: Availability) -> None:
    """Models that nobody uses any more make room for those that are used."""
    for number in range(MOST_MODELS + 50):
        fails(known, model(f"m{number}"))
        known.checked(model(url=f"http://h{number}/v1").backend, UNWELL)
        fails(known, model(url=f"http://k{number}/v1"), ErrorClass.PROVIDER_CREDENTIALS)
    assert all(len(kept) <= MOST_MODELS for kept in vars(known).values() if hasattr(kept, "keys"))
    assert known.standing(model(f"m{MOST_MODELS + 49}")).failures == 1


# ---- what checks show


def test_a_check_that_failed_speaks_against_asking(known: Availability, clock: Clock) -> None:
    """And does not forbid it; one that succeeds takes it back, and so does time."""
    known.checked(model().backend, UNWELL)
    assert known.why_not(model()) == "did not answer its last check: it cannot be reached"
    assert (known.ready_in(model()), known.blame(model())) == (0, None)
    known.checked(model().backend, Answer(("m",)))
    assert known.why_not(model()) == ""
    known.checked(model().backend, UNWELL)
    clock.time += STALE_SECONDS
    assert known.why_not(model()) == ""
    assert known.check(model().backend) is None


def test_a_busy_server_that_answers_calls(known: Availability, clock: Clock) -> None:
    """Too late for its check, it is known by the answers that came after that."""
    call = begun(known, model())
    known.checked(model().backend, UNWELL)
    clock.time += 1
    call.succeeded(7, 0.1)
    assert known.why_not(model()) == ""
    clock.time += 1
    known.checked(model().backend, UNWELL)
    assert known.why_not(model())


def test_a_server_that_is_back_is_tried_at_once(known: Availability, clock: Clock) -> None:
    """By one call, whatever its circuit's pause was, and with the key that it refused before."""
    fails(known, model(), times=3)
    fails(known, model("keyed"), ErrorClass.PROVIDER_CREDENTIALS)
    known.checked(model().backend, UNWELL)
    assert known.begin(model("keyed")) is None
    clock.time += 1
    known.checked(model().backend, Answer())
    assert known.begin(model("keyed"))
    assert known.why_not(model()) == ""
    assert known.begin(model())
    assert known.begin(model()) is None


def test_checks_alone_do_not_shorten_a_pause(known: Availability) -> None:
    """A server whose checks are well while its answers fail was never away."""
    known.checked(model().backend, Answer(("m",)))
    fails(known, model(), times=3)
    known.checked(model().backend, Answer(("m",)))
    assert known.begin(model()) is None


def test_a_model_that_is_not_listed(known: Availability) -> None:
    """Its server answers, and does not have it; a server that lists nothing says nothing."""
    known.checked(model().backend, Answer(("other",)))
    assert known.why_not(model()) == "the server does not list m"
    assert known.ready_in(model()) == 0
    assert known.why_not(replace(model(), id="")) == ""
    known.checked(model().backend, Answer())
    assert known.why_not(model()) == ""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_call_is_let_through_exactly_when_it_is_ready(data: st.DataObject) -> None:
    """Whatever calls and checks have shown: ready is 0 or nobody is let through, who is not let
    through is blamed and told of, and no wait is longer than the longest."""
    clock, calls = Clock(), []
    known = Availability(clock)
    for _ in range(data.draw(st.integers(1, 25))):
        clock.time += data.draw(st.sampled_from([0, 0.5, 4, 30, 400]))
        match data.draw(st.sampled_from(["begin", "end", "check"])):
            case "begin":
                ready, blame, why = (
                    known.ready_in(model()),
                    known.blame(model()),
                    known.why_not(model()),
                )
                call = known.begin(model())
                assert (call is None) == (ready > 0) == (blame is not None)
                assert call or why
                calls += [call] if call else []
            case "end" if calls:
                call = calls.pop(data.draw(st.integers(0, len(calls) - 1)))
                kind = data.draw(st.sampled_from([None, *KINDS]))
                wish = data.draw(st.sampled_from([None, 0.0, 3.0, 1e9]))
                if kind is None:
                    call.succeeded(10, 0.1)
                else:
                    call.failed(BackendError(kind, "x", wish))
            case "check":
                answers = st.sampled_from([UNWELL, Answer(), Answer(("m",)), Answer(("other",))])
                known.checked(model().backend, data.draw(answers))
        assert 0 <= known.standing(model()).seconds <= LONGEST_COOLING_SECONDS


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        ('# HELP q:w of\n# TYPE q:w gauge\nq:w{engine="0",model="a b"} 3.0\n', 3),
        ('q:w{engine="0"} 3.0\nq:w{engine="1"} 4e0 1700000000\nq:w_more{x="y"} 9\n', 7),
        ("q:w 2\r\n", 2),
        ('other 1\nnot_q:w 5\n q:w 5\n"q:w" 5', None),
        ("q:w NaN", None),
        ("q:w +Inf", None),
        ("q:w -1", None),
        ("q:w many", None),
        ("q:w", None),
        ("", None),
        ("\0" * 100, None),
    ],
)
def test_reading_metrics(text: str, waiting: int | None) -> None:
    """The gauge is found by its whole name, over all its labels; what is no count is none."""
    assert count(text, "q:w") == waiting
