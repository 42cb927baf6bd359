"""The order for each objective: what decides it, what breaks ties, and what is never lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends import Availability
from semroute_service.backends.checking import Answer
from semroute_service.backends.speeds import WINDOW_SECONDS
from semroute_service.decision import Candidate
from semroute_service.profile import Backend, Model, load_providers
from semroute_service.profile.providers import Speed
from semroute_service.query import Objective, Sensitivity
from semroute_service.ranking import EXPLORE_EVERY, Pace, pace_of, rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VLLM = load_providers()["vllm"]
KNOWN = Pace(1.0, 50.0, measured=1)
COST, LATENCY = Objective.COST, Objective.LATENCY
QUALITY, BALANCED = Objective.QUALITY, Objective.BALANCED


def model(name: str, **fields: Any) -> Model:
    """A local model on a server of its own."""
    backend = Backend(name, VLLM, f"http://{name}/v1", True, "", Sensitivity.RESTRICTED)
    return Model(name, f"{name}-id", backend, frozenset(), **fields)


def candidate(name: str, cost: int | None = 0, quality: float | None = None) -> Candidate:
    return Candidate(model(name, quality=quality), estimated_cost=cost)


def order(
    candidates: Sequence[Candidate],
    objective: Objective,
    paces: dict[str, Pace] | None = None,
    max_tokens: int | None = None,
) -> list[str]:
    """The names as ranked; a model whose pace is not given is as fast as any other."""
    known = paces or {}
    ranked = rank(candidates, objective, max_tokens, lambda m: known.get(m.name, KNOWN))
    return [each.model.name for each in ranked]


# ---- one objective at a time


def test_cost_takes_the_cheapest_first() -> None:
    """What costs nothing before what is cheap; an unknown price comes last."""
    some = [candidate("unknown", None), candidate("dear", 9), candidate("free", 0)]
    assert order([*some, candidate("cheap", 2)], COST) == ["free", "cheap", "dear", "unknown"]


def test_quality_takes_the_best_first() -> None:
    """One that is declared poor still comes before those of which nothing is declared."""
    some = [candidate("x"), candidate("poor", quality=0), candidate("y")]
    assert order([*some, candidate("good", quality=80)], QUALITY) == ["good", "poor", "x", "y"]


def test_latency_is_that_of_the_whole_answer() -> None:
    """A quick start wins a short answer, a high rate a long one, and a queue loses both."""
    quick, steady = Pace(0.1, 20.0, measured=1), Pace(2.0, 200.0, measured=1)
    some = [candidate("quick"), candidate("steady")]
    paces = {"quick": quick, "steady": steady}
    assert order(some, LATENCY, paces) == ["steady", "quick"]
    assert order(some, LATENCY, paces, max_tokens=10) == ["quick", "steady"]
    paces["quick"] = replace(quick, waiting=6)
    assert order(some, LATENCY, paces, max_tokens=10) == ["steady", "quick"]


def test_balanced_is_the_mean_of_three_marks() -> None:
    """By hand: cost 0, 0.8, 0.4; latency 0.5, 0.25, 0; quality 0.5, 0, 1 (2 of 2)."""
    some = [candidate("a", 5, 1), candidate("b", 1), candidate("c", 3, 2)]
    paces = {"a": Pace(5.0, 100.0, 1), "b": Pace(10.0, 100.0, 1), "c": Pace(15.0, 100.0, 1)}
    ranked = rank(some, BALANCED, None, lambda m: paces[m.name])
    assert [each.model.name for each in ranked] == ["c", "b", "a"]
    assert [each.ranking for each in ranked] == [
        "0.47 of 1: cost 0.40, latency 0.00, quality 1.00",
        "0.35 of 1: cost 0.80, latency 0.25, quality unknown",
        "0.33 of 1: cost 0.00, latency 0.50, quality 0.50",
    ]


def test_balanced_measures_by_those_who_may_answer() -> None:
    """How dear one is that was denied says nothing about the others."""
    some = [candidate("dear", 10, 50), candidate("good", 8, 100)]
    alone = [each.ranking for each in rank(some, BALANCED, None, lambda _: KNOWN)]
    denied = replace(candidate("denied", 1000, 100), rule="local_only", reason="no")
    beside = rank([*some, denied], BALANCED, None, lambda _: KNOWN)
    assert [each.ranking for each in beside if each.admitted] == alone


# ---- what holds for every objective

NUMBERS = st.integers(0, 6)
PACES = st.builds(
    Pace,
    first_token=st.none() | st.sampled_from([0.1, 0.5, 2.0]),
    tokens_per_second=st.none() | st.sampled_from([10.0, 50.0, 400.0]),
    measured=st.integers(0, 2),
    waiting=st.integers(0, 3),
    calls=NUMBERS,
)
KINDS = st.tuples(
    st.none() | NUMBERS,
    st.none() | NUMBERS,
    PACES,
    st.booleans(),
    st.sampled_from(["", "", "local_only"]),
    st.sampled_from(["", "", "failed"]),
)
Kind = tuple[int | None, int | None, Pace, bool, str, str]


def made(kinds: Sequence[Kind]) -> tuple[list[Candidate], Callable[[Model], Pace]]:
    """A candidate of each kind, and their paces."""
    candidates = [
        Candidate(model(f"m{i}", quality=quality), fallback, rule, rule, cost, down)
        for i, (cost, quality, _, fallback, rule, down) in enumerate(kinds)
    ]
    paces = {f"m{i}": kind[2] for i, kind in enumerate(kinds)}
    return candidates, lambda m: paces[m.name]


@settings(deadline=None)
@given(kinds=st.lists(KINDS, max_size=6), objective=st.sampled_from(Objective))
def test_candidates_change_places_and_nothing_else(kinds: list[Kind], objective: Objective) -> None:
    """None is lost, admitted, denied or made a first choice; each says what it was ranked by."""
    candidates, pace = made(kinds)
    ranked = rank(candidates, objective, None, pace)
    assert all(each.ranking for each in ranked)
    names = [each.model.name for each in ranked]
    assert sorted(names) == [each.model.name for each in candidates]
    as_before = {each.model.name: each for each in candidates}
    assert all(replace(each, ranking="") == as_before[each.model.name] for each in ranked)
    assert rank(candidates, objective, None, pace) == ranked


@settings(deadline=None)
@given(kind=KINDS, count=st.integers(1, 5), objective=st.sampled_from(Objective))
def test_equals_keep_the_order_written(kind: Kind, count: int, objective: Objective) -> None:
    """Whatever they have in common, known or not."""
    candidates, pace = made([kind] * count)
    ranked = rank(candidates, objective, None, pace)
    assert [c.model.name for c in ranked] == [c.model.name for c in candidates]


def dearer(kind: Kind) -> Kind:
    return ((kind[0] or 0) + 1, *kind[1:])


def worse(kind: Kind) -> Kind:
    return (kind[0], None, *kind[2:]) if not kind[1] else (kind[0], kind[1] - 1, *kind[2:])


def slower(kind: Kind) -> Kind:
    first, rate = kind[2].first_token or 1.0, kind[2].tokens_per_second or 50.0
    pace = replace(kind[2], first_token=first * 2, tokens_per_second=rate / 2, waiting=9)
    return (*kind[:2], pace, *kind[3:])


@settings(deadline=None)
@given(
    kinds=st.lists(KINDS, min_size=2, max_size=6),
    harm=st.sampled_from([(dearer, COST), (worse, QUALITY), (slower, LATENCY)]),
    balanced=st.booleans(),
    data=st.data(),
)
def test_who_gets_worse_never_gains(
    kinds: list[Kind],
    harm: tuple[Callable[[Kind], Kind], Objective],
    balanced: bool,
    data: st.DataObject,
) -> None:
    """A higher price, a lower quality or a slower answer overtakes nobody, alone or weighed."""
    # Nothing is explored, so that figures alone decide; and worse is so by known figures.
    kinds = [(k[0], k[1] or 0, replace(k[2], calls=0), *k[3:]) for k in kinds]
    kinds[0] = (*kinds[0][:2], replace(kinds[0][2], calls=1), *kinds[0][3:])
    place = data.draw(st.integers(0, len(kinds) - 1))
    kinds[place] = (kinds[place][0] or 0, kinds[place][1] or 1, *kinds[place][2:])
    make_worse, objective = harm

    def behind(kinds: list[Kind]) -> set[str]:
        candidates, pace = made(kinds)
        ranked = rank(candidates, BALANCED if balanced else objective, None, pace)
        names = [each.model.name for each in ranked]
        return set(names[names.index(f"m{place}") :])

    before = behind(kinds)
    kinds[place] = make_worse(kinds[place])
    assert behind(kinds) <= before


# ---- how fast a model is expected to be


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def availability(clock: Clock) -> Availability:
    return Availability(clock)


def measure(availability: Availability, of: Model, first_token: float, tokens: int = 0) -> None:
    """One call that took so long to its first token, and a second for the others."""
    call = availability.begin(of)
    assert call
    call.first_token(first_token)
    call.succeeded(tokens, 1.0)


def test_what_was_measured_goes_before_what_is_declared(
    availability: Availability, clock: Clock
) -> None:
    """And what is declared fills in for what no call has told, and returns when calls are old."""
    declared = Speed(first_token_seconds=3.0, tokens_per_second=30)
    it = model("it", speed=declared)
    assert pace_of(it, availability) == Pace(3.0, 30.0)
    measure(availability, it, 0.5)
    assert pace_of(it, availability) == Pace(0.5, 30.0, measured=1, calls=1)
    measure(availability, it, 0.5, tokens=101)
    assert pace_of(it, availability) == Pace(0.5, 100.0, measured=2, calls=2)
    clock.now += WINDOW_SECONDS
    assert pace_of(it, availability) == Pace(3.0, 30.0, calls=2)


def test_the_queue_of_a_server_is_that_of_its_models(availability: Availability) -> None:
    """As the server's last check said."""
    it, other = model("it"), model("other")
    availability.checked(it.backend, Answer(waiting=4))
    assert pace_of(it, availability).waiting == 4
    assert pace_of(other, availability) == Pace()


@pytest.mark.parametrize(
    ("pace", "words"),
    [
        (Pace(), "not measured yet"),
        (Pace(waiting=2), "not measured yet, 2 waiting there"),
        (Pace(0.2), "about 0.2 s to the first token, as declared"),
        (
            Pace(0.414, 90.4, measured=20),
            "about 0.41 s to the first token and 90 tokens a second, measured over 20 calls",
        ),
        (
            Pace(12.0, 1234.5, measured=1, waiting=3),
            "about 12 s to the first token and 1,234 tokens a second, measured over 1 call, "
            "3 waiting there",
        ),
    ],
)
def test_a_pace_in_words(pace: Pace, words: str) -> None:
    """What is known and on what grounds; what is not known is not told."""
    assert str(pace) == words


# ---- what nobody knows

FAST = Pace(0.1, 500.0, measured=20)


def unknown(calls: int = 0) -> Pace:
    return Pace(calls=calls)


def test_who_is_unknown_gets_a_turn() -> None:
    """One call in so many, though the others are faster; whoever is called closes the turn."""
    some = [candidate("fast"), candidate("new")]
    for calls in range(1, 3 * EXPLORE_EVERY):
        paces = {"fast": replace(FAST, calls=calls), "new": unknown()}
        due = calls % EXPLORE_EVERY == 0
        assert order(some, LATENCY, paces)[0] == ("new" if due else "fast")
        assert order(some, BALANCED, paces)[0] == "fast"
        if due:
            paces["new"] = unknown(calls=1)
            assert order(some, LATENCY, paces)[0] == "fast"


def test_the_least_tried_of_the_unknown_is_first() -> None:
    """One that never brings a token does not take the turns of others."""
    paces = {"fast": replace(FAST, calls=15), "mute": unknown(4), "new": unknown(1)}
    some = [candidate(name) for name in ("mute", "fast", "new")]
    assert order(some, LATENCY, paces) == ["new", "fast", "mute"]


@pytest.mark.parametrize(
    "against", [{"rule": "local_only", "reason": "no"}, {"unavailable": "failed 3 times in a row"}]
)
def test_no_turn_for_who_cannot_answer(against: dict[str, Any]) -> None:
    """Nothing is found out from who is denied or known to be down."""
    some = [candidate("fast"), replace(candidate("down"), **against), candidate("new")]
    paces = {"fast": replace(FAST, calls=20), "down": unknown(), "new": unknown()}
    assert order(some, LATENCY, paces)[0] == "new"
    assert order(some[:2], LATENCY, paces)[0] == "fast"


def test_what_is_declared_in_full_is_believed() -> None:
    """A model that is declared slow is not tried; one of which half is declared is."""
    some = [candidate("fast"), candidate("declared")]
    paces = {"fast": replace(FAST, calls=20), "declared": Pace(3.0, 20.0)}
    assert order(some, LATENCY, paces) == ["fast", "declared"]
    paces["declared"] = Pace(3.0)
    assert order(some, LATENCY, paces) == ["declared", "fast"]


def test_where_nothing_is_known_the_written_order_stands() -> None:
    """A first request, and one after a long pause, goes where the profile sends it."""
    some = [candidate("first"), candidate("second")]
    for calls in (0, EXPLORE_EVERY):
        paces = {"first": unknown(calls), "second": unknown()}
        assert order(some, LATENCY, paces) == ["first", "second"]
