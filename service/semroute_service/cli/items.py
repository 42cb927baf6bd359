"""What is asked, from a line of a batch or from the command line's options, as a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from semroute.v1 import router_pb2 as pb
from semroute_service.cli import chat

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

_TEXT = ("text", str)
_NUMBER = ("a number", (int, float))
_WHOLE = ("a whole number", int)
DECIDE_KEYS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "query": _TEXT,
    "profile": _TEXT,
    "model": _TEXT,
    "tenant": _TEXT,
    "region": _TEXT,
    "sensitivity": _TEXT,
    "local_only": ("true or false", bool),
    "objective": _TEXT,
    "max_cost": _NUMBER,
    "session_id": _TEXT,
}
"""What a line of a batch may hold: what it must be, in words and as types. Null is unset."""
COMPLETE_KEYS = {
    **DECIDE_KEYS,
    "id": ("text or a number", (str, int, float)),
    "messages": ("a list of objects", list),
    "system": _TEXT,
    "max_tokens": _WHOLE,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "stop": ("text or a list of texts", (str, list)),
    "seed": _WHOLE,
    "response_format": ("an object", dict),
    "tools": ("a list of objects", list),
    "tool_choice": ("text or an object", (str, dict)),
}
"""The same where answers are wanted."""
NANO = 1_000_000_000
UNASKABLE = (ValueError, OverflowError, TypeError, RecursionError)
"""What a line raises that cannot be read, and the contract's messages where they cannot hold a
number or a text."""
_LONGEST_LINE = 64 * 1024 * 1024
_OPTIONS = {
    **{key: key for key in DECIDE_KEYS if key != "query"},
    **{key: key for key in ("system", "max_tokens", "temperature")},
    "session_id": "session",
}
"""The option that gives a key where a line does not."""


def lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number; raises ``ValueError`` where it is no text."""
    for number, data in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        if len(data) == _LONGEST_LINE:
            raise ValueError(f"line {number} is longer than {_LONGEST_LINE:,} bytes")
        try:
            text = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise ValueError(f"line {number} is not UTF-8 text") from None
        if text.strip():
            yield number, text


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of every request, under the keys of a line."""
    values = {key: getattr(options, name, None) for key, name in _OPTIONS.items()}
    return {k: v for k, v in values.items() if v is not None and v is not False and v != ""}


def read(line: str, defaults: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a batch; what it leaves out comes from ``defaults``. Raises ``UNASKABLE``."""
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    if isinstance(item, str):
        item = {"query": item}
    subjects = [key for key in ("query", "messages") if key in keys]
    if not isinstance(item, dict) or sum(item.get(key) is not None for key in subjects) != 1:
        wanted = " or ".join(f'"{key}"' for key in subjects)
        raise ValueError(f"must be a JSON string, or an object with {wanted}")
    for key, value in item.items():
        _check(key, value, keys)
    return {**defaults, **{key: value for key, value in item.items() if value is not None}}


def unreadable(path: str, error: OSError | ValueError) -> str:
    """Why a file cannot be read, for people."""
    return f"{path}: {getattr(error, 'strerror', None) or error}"


def wrong(error: Exception) -> dict[str, str]:
    """The error that stands in the place of a line that cannot be asked."""
    return {"code": "INVALID_ARGUMENT", "reason": "INVALID_REQUEST", "message": str(error)}


def decide_request(item: Mapping[str, Any]) -> pb.DecideRequest:
    """Raises ``UNASKABLE``."""
    return pb.DecideRequest(
        query=_query(item, [pb.Message(role=pb.ROLE_USER, text=item["query"])]),
        profile=item.get("profile") or "",
        preferences=_preferences(item),
    )


def complete_request(item: Mapping[str, Any]) -> pb.CompleteRequest:
    """Raises ``UNASKABLE``."""
    request = pb.CompleteRequest(
        query=_query(item, _messages(item)),
        profile=item.get("profile") or "",
        preferences=_preferences(item),
        sampling=pb.Sampling(
            stop=_stops(item.get("stop")),
            **{name: item.get(name) for name in ("temperature", "top_p", "max_tokens", "seed")},
        ),
        tools=chat.tools(item.get("tools") or []),
    )
    if item.get("tool_choice") is not None:
        request.tool_choice.CopyFrom(chat.tool_choice(item["tool_choice"]))
    if item.get("response_format") is not None:
        request.response_format.CopyFrom(chat.response_format(item["response_format"]))
    return request


def arguments(request: pb.DecideRequest | pb.CompleteRequest) -> dict[str, Any]:
    """``request`` as the clients' methods take it."""
    return {field.name: value for field, value in request.ListFields()}


def _check(key: str, value: Any, keys: Mapping[str, Any]) -> None:
    if key not in keys:
        raise ValueError(f"unknown key {key}; known: {', '.join(sorted(keys))}")
    word, kind = keys[key]
    # True and false are numbers to Python, and to nobody else.
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if value is not None and not fits:
        raise ValueError(f"{key} must be {word}")


def _query(item: Mapping[str, Any], messages: list[pb.Message]) -> pb.Query:
    word = (item.get("sensitivity") or "unspecified").upper()
    caller = pb.Caller(
        tenant=item.get("tenant") or "",
        region=item.get("region") or "",
        sensitivity=f"SENSITIVITY_{word}",
        local_only=bool(item.get("local_only")),
    )
    return pb.Query(messages=messages, caller=caller, session_id=item.get("session_id") or "")


def _messages(item: Mapping[str, Any]) -> list[pb.Message]:
    """The conversation; instructions stand before one that has none of its own."""
    if item.get("messages") is not None:
        found = chat.messages(item["messages"])
    else:
        found = [pb.Message(role=pb.ROLE_USER, text=item["query"])]
    if item.get("system") and not any(m.role == pb.ROLE_SYSTEM for m in found):
        found.insert(0, pb.Message(role=pb.ROLE_SYSTEM, text=item["system"]))
    return found


def _preferences(item: Mapping[str, Any]) -> pb.Preferences:
    max_cost = item.get("max_cost")
    word = (item.get("objective") or "unspecified").upper()
    return pb.Preferences(
        model=item.get("model") or "",
        objective=f"OBJECTIVE_{word}",
        max_cost_nano_usd=None if max_cost is None else round(max_cost * NANO),
        explain=bool(item.get("explain")),
    )


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not all(isinstance(stop, str) for stop in stops):
        raise ValueError("stop must be text or a list of texts")
    return stops
