"""Moving quantiles: exact, of late, bounded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semroute_service.backends.speeds import (
    FEWEST_TOKENS,
    MOST,
    WINDOW_SECONDS,
    Quantiles,
    Speed,
    Speeds,
)

STEPS = st.tuples(st.floats(0, 60), st.floats(0, 1e3))


@given(st.lists(STEPS, max_size=3 * MOST), st.floats(0.01, 1))
def test_quantiles_are_those_of_the_values_of_late(
    steps: list[tuple[float, float]], part: float
) -> None:
    """At any time they are what sorting the last values within the window gives."""
    quantiles, now, all_values = Quantiles(), 0.0, []
    for pause, value in steps:
        now += pause
        quantiles.add(now, value)
        all_values.append((now, value))
    late = sorted(v for at, v in all_values[-MOST:] if at > now - WINDOW_SECONDS)
    assert quantiles.count(now) == len(late)
    if late:
        assert quantiles.quantile(part) == late[max(0, math.ceil(part * len(late)) - 1)]


def test_median_and_p95() -> None:
    """Of a hundred values in any order they are the fiftieth and the ninety-fifth."""
    quantiles = Quantiles()
    for number in range(100):
        quantiles.add(0, (number * 37) % 100 + 1)
    assert quantiles.count(0) == 100
    assert (quantiles.quantile(0.5), quantiles.quantile(0.95)) == (50, 95)


def test_no_more_than_so_many_count() -> None:
    """However many calls there are at once, the last ones make the quantiles."""
    quantiles = Quantiles()
    for number in range(3 * MOST):
        quantiles.add(0, number)
    assert (quantiles.count(0), quantiles.quantile(0.01)) == (MOST, 2 * MOST + 1)


def test_what_is_old_is_forgotten() -> None:
    """A model that was fast an hour ago has no speed now."""
    speeds = Speeds()
    speeds.first_token(0, 0.2)
    assert speeds.speed(WINDOW_SECONDS - 1)
    assert speeds.speed(WINDOW_SECONDS) is None


def test_a_speed() -> None:
    """Times to the first token, and tokens a second after it."""
    speeds = Speeds()
    assert speeds.speed(0) is None
    for seconds in (0.1, 0.2, 0.9):
        speeds.first_token(0, seconds)
    assert speeds.speed(0) == Speed(0.2, 0.9, 3, None)
    speeds.answered(0, tokens=101, seconds_after_first=2)
    assert speeds.speed(0) == Speed(0.2, 0.9, 3, 50.0)


@pytest.mark.parametrize(
    ("tokens", "seconds"), [(FEWEST_TOKENS - 1, 1.0), (0, 1.0), (100, 0.0), (100, -1.0)]
)
def test_too_little_to_tell(tokens: int, seconds: float) -> None:
    """Answers of few tokens, or that came all at once, say nothing about tokens a second."""
    speeds = Speeds()
    speeds.first_token(0, 0.1)
    speeds.answered(0, tokens, seconds)
    speed = speeds.speed(0)
    assert speed
    assert speed.tokens_per_second is None


def test_no_number_is_no_value() -> None:
    """What a clock that misbehaves would give does not spoil the order."""
    quantiles = Quantiles()
    for value in (math.nan, math.inf, 1.0):
        quantiles.add(0, value)
    assert (quantiles.count(0), quantiles.quantile(1)) == (1, 1.0)
