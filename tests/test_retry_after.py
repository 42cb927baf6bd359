"""How long an upstream asks to wait: every form is read, and nonsense is no answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends.retry_after import LONGEST_SECONDS, retry_after, seconds_of

NOW = 1_800_000_000.0
"""Seconds since 1970, at a whole second."""


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def told(headers: dict[str, str] | None = None, body: Any = "", status: int = 429) -> float | None:
    text = body if isinstance(body, str) else json.dumps(body)
    return retry_after(status, headers or {}, text, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        (" 1.5 ", 1.5),
        ("250ms", 0.25),
        ("1s", 1),
        ("1.5s", 1.5),
        ("6m0s", 360),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723),
        ("1h", 3600),
        ("1m", 60),
        ("1m500ms", 60.5),
        ("0.5ms", 0.0005),
        ("1d", 86_400),
        ("3d", 86_400),
        ("1e3", None),
        ("-5", 0),
        ("+5", 5),
        ("999999", 86_400),
        ("9" * 400, 86_400),
        (f"{NOW + 30:.0f}", 30),
        (f"{(NOW + 30) * 1000:.0f}", 30),
        (f"{NOW - 30:.0f}", 0),
        (format_datetime(at(90), usegmt=True), 90),
        (format_datetime(at(-90), usegmt=True), 0),
        (at(45).isoformat(), 45),
        (at(45).isoformat().replace("+00:00", "Z"), 45),
        ("2027-01-15", None),
        ("Fri, 31 Feb 2027 00:00:00 GMT", None),
        ("", None),
        ("s", None),
        ("5 s", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("٣", None),
        ("1m2h", None),
    ],
)
def test_forms_of_a_wait(text: str, seconds: float | None) -> None:
    """Seconds, spans and moments of every kind are seconds; what is none of them is nothing."""
    assert seconds_of(text, NOW) == (None if seconds is None else pytest.approx(seconds))


GOOGLE = [{"error": {"code": 429, "details": [{"@type": "x"}, {"retryDelay": "34s"}]}}]
QUOTED = {"error": {"metadata": {"headers": {"X-RateLimit-Reset": f"{(NOW + 9) * 1000:.0f}"}}}}


@pytest.mark.parametrize(
    ("headers", "body", "status", "seconds"),
    [
        ({"Retry-After": "20"}, "", 429, 20),
        ({"retry-after": "20"}, "", 503, 20),
        ({"retry-after": "20", "retry-after-ms": "1500"}, "", 429, 1.5),
        ({"retry-after": "soon"}, GOOGLE, 429, 34),
        ({"retry-after": "20"}, GOOGLE, 429, 20),
        ({}, GOOGLE, 429, 34),
        ({}, GOOGLE[0], 503, 34),
        ({}, {"error": "loading", "estimated_time": 20.5}, 503, 20.5),
        ({}, {"estimated_time": True}, 503, None),
        ({}, {"estimated_time": float("nan")}, 503, None),
        ({}, QUOTED, 429, 9),
        ({}, QUOTED, 500, None),
        ({"x-ratelimit-reset-requests": "1s"}, "", 429, 1),
        ({"x-ratelimit-reset-requests": "1s"}, "", 503, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, "", 429, 1),
        ({"X-RateLimit-Reset": f"{(NOW + 9) * 1000:.0f}"}, "", 429, 9),
        ({"ratelimit": '"default";r=0;t=24'}, "", 429, 24),
        ({}, "", 429, None),
        ({}, "{", 429, None),
        ({}, "[" * 100_000, 429, None),
        ({}, {"retryDelay": 34}, 429, None),
    ],
)
def test_where_a_wait_is_told(
    headers: dict[str, str], body: Any, status: int, seconds: float | None
) -> None:
    """What is meant for this answer goes before the reset of a limit, and that counts only where
    the limit is why."""
    assert told(headers, body, status) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("form", ["x-ratelimit-{}-{}", "anthropic-ratelimit-{1}-{0}"])
def test_the_limit_that_is_used_up_decides(form: str) -> None:
    """Of several limits, those with nothing left say when to come back, the last one of them."""
    headers = {
        form.format("remaining", "requests"): "59",
        form.format("reset", "requests"): "1s",
        form.format("remaining", "tokens"): "0",
        form.format("reset", "tokens"): "6m0s",
        form.format("remaining", "input-tokens"): "0",
        form.format("reset", "input-tokens"): "2m",
    }
    assert told(headers) == 360


@settings(deadline=None)
@given(
    st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999), st.booleans()
)
def test_any_span_is_read_as_it_was_written(
    hours: int, minutes: int, seconds: int, milliseconds: int, apart: bool
) -> None:
    """However a span is split into units, it is as long as its parts."""
    small = f"{seconds}s{milliseconds}ms" if apart else f"{seconds}.{milliseconds:03}s"
    wanted = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert seconds_of(f"{hours}h{minutes}m{small}", NOW) == pytest.approx(wanted)


NAMES = st.sampled_from(
    [
        "Retry-After",
        "retry-after-ms",
        "x-ratelimit-reset",
        "x-ratelimit-remaining",
        "x-ratelimit-reset-requests",
        "anthropic-ratelimit-tokens-reset",
        "ratelimit",
    ]
)
WORDS = st.sampled_from(["0", "-1", "1e309", "NaN", "1h", "ms", "Z", "t=", ";t=1", "2027-01-01T"])
VALUES = st.text(max_size=30) | st.lists(WORDS, max_size=4).map("".join) | st.floats().map(str)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "retryDelay", "estimated_time", "headers", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.sampled_from([200, 400, 429, 498, 503, 529]),
    st.dictionaries(NAMES, VALUES, max_size=5),
    JSON.map(json.dumps) | st.text(max_size=50),
)
def test_nonsense_is_nothing_or_a_wait_of_at_most_a_day(
    status: int, headers: dict[str, str], body: str
) -> None:
    """No header and no body can raise, or ask for a wait that is not from 0 to a day."""
    wait = retry_after(status, headers, body, NOW)
    assert wait is None or 0 <= wait <= LONGEST_SECONDS
