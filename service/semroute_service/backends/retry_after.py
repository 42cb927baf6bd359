"""How long an upstream asks to be left alone: every form in which providers say so."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST_SECONDS = 86_400.0
"""What asks for more is taken to ask for a day."""
RATE_LIMITED = frozenset({413, 429, 498, 529})
"""Only with these does a limit's reset say when to come back; a good answer tells it, too."""

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_SPAN = re.compile(
    r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9]+(?:\.[0-9]+)?)s)?"
    r"(?:([0-9]+(?:\.[0-9]+)?)ms)?"
)
_POLICY = re.compile(r";\s*t=([0-9]+)")
"""In RateLimit: "default";r=0;t=24, as Hugging Face writes it, the seconds until the reset."""
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11
"""A number this large is a moment, not a span."""
_DEEPEST = 6


def retry_after(
    status: int, headers: Mapping[str, str], body: str = "", now: float | None = None
) -> float | None:
    """Seconds to wait, from 0 to a day, before asking again; None where nothing says.

    What is meant for this answer goes before what is only a limit's reset. ``now`` is the moment
    in seconds since 1970.
    """
    now = time.time() if now is None else now
    fields = {name.lower(): value for name, value in headers.items()}
    told = _parsed(body)
    limited = status in RATE_LIMITED
    found = (
        _milliseconds(fields.get("retry-after-ms", "")),
        seconds_of(fields.get("retry-after", ""), now),
        _in_body(told, now),
        _first_reset(fields, now) if limited else None,
        _first_reset(_quoted_headers(told), now) if limited else None,
    )
    return next((wait for wait in found if wait is not None), None)


def seconds_of(text: str, now: float) -> float | None:
    """A wait written as seconds, as a span such as 1h2m3s or 250ms, or as the moment when it ends:
    seconds or milliseconds since 1970, an HTTP date, RFC 3339."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value >= _EPOCH_MILLISECONDS:
            return _bounded(value / 1000 - now)
        return _bounded(value - now if value >= _EPOCH_SECONDS else value)
    span = _SPAN.fullmatch(text)
    if text and span:
        parts = zip(span.groups(), _UNITS, strict=True)
        return _bounded(sum(float(count) * unit for count, unit in parts if count))
    moment = _moment(text)
    return None if moment is None else _bounded(moment - now)


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_SECONDS)


def _milliseconds(text: str) -> float | None:
    text = text.strip()
    return _bounded(float(text) / 1000) if _NUMBER.fullmatch(text) else None


def _moment(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
            # Without a zone it would be read as this machine's own time.
            return moment.timestamp() if moment.tzinfo else None
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            continue
    return None


def _first_reset(fields: Mapping[str, str], now: float) -> float | None:
    """When the limit that is used up is reset; of those that do not say, the one that is next.

    OpenAI, Groq, Cerebras and OpenRouter write ``x-ratelimit-reset[-...]``, Anthropic
    ``anthropic-ratelimit-...-reset``; each has a twin with ``remaining`` in its place.
    """
    spent: list[float] = []
    others: list[float] = []
    for name, value in fields.items():
        if "ratelimit" in name and "reset" in name:
            wait = seconds_of(value, now)
            if wait is not None:
                left = fields.get(name.replace("reset", "remaining"), "").strip()
                (spent if left in {"0", "0.0"} else others).append(wait)
    others += [_bounded(float(t)) for t in _POLICY.findall(fields.get("ratelimit", ""))]
    return max(spent) if spent else min(others, default=None)


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _in_body(told: Any, now: float) -> float | None:
    """Google's ``retryDelay`` ("34s"), and the ``estimated_time`` (seconds) of a model that
    Hugging Face is loading."""
    for entry in _objects(told):
        delay = entry.get("retryDelay")
        wait = seconds_of(delay, now) if isinstance(delay, str) else None
        if wait is not None:
            return wait
        loading = entry.get("estimated_time")
        if isinstance(loading, int | float) and not isinstance(loading, bool):
            return seconds_of(f"{loading}", now)
    return None


def _quoted_headers(told: Any) -> dict[str, str]:
    """OpenRouter repeats inside the error what the provider behind it said in its headers."""
    for entry in _objects(told):
        headers = entry.get("headers")
        if isinstance(headers, dict):
            return {name.lower(): str(value) for name, value in headers.items()}
    return {}


def _objects(told: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object in ``told``, as deep as error bodies go."""
    if depth > _DEEPEST or not isinstance(told, dict | list):
        return
    if isinstance(told, dict):
        yield told
    for value in told.values() if isinstance(told, dict) else told:
        yield from _objects(value, depth + 1)
