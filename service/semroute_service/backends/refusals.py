"""What an upstream's refusal means: from its status and what its body says to an error class.

Only the fields in which upstreams describe an error are read; many repeat the request beside them,
and what a caller wrote must not decide what its failure is called. Messages repeat it as well, so
what stands in quotes is not read.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from semroute_service.backends.base import BackendError
from semroute_service.backends.refusal_rules import RULES, Said
from semroute_service.backends.retry_after import retry_after
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STATUSES = {
    400: ErrorClass.CALLER_INVALID_REQUEST,
    401: ErrorClass.PROVIDER_CREDENTIALS,
    402: ErrorClass.PROVIDER_CREDENTIALS,  # nothing left to pay with
    403: ErrorClass.PROVIDER_CREDENTIALS,
    404: ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    408: ErrorClass.PROVIDER_UNAVAILABLE,
    410: ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    413: ErrorClass.CALLER_CONTEXT_LENGTH,
    422: ErrorClass.CALLER_INVALID_REQUEST,
    424: ErrorClass.PROVIDER_UNAVAILABLE,  # TGI, Bedrock: the model behind it failed
    425: ErrorClass.PROVIDER_UNAVAILABLE,
    429: ErrorClass.PROVIDER_RATE_LIMIT,
    498: ErrorClass.PROVIDER_RATE_LIMIT,  # Groq: no capacity left
}
"""What a status means by itself; from 500 on, the provider is unavailable."""

_QUOTED = re.compile(
    r"""
      "[^"]*(?:"|$)
    | `[^`]*(?:`|$)
    | “[^”]*(?:”|$) | „[^“”]*(?:[“”]|$) | «[^»]*(?:»|$) | ‘.*?(?:’(?!\w)|$)
    | (?<!\w)[bru]?'.*?(?:'(?!\w)|$)  # one within a word is an apostrophe
    """,
    re.VERBOSE | re.DOTALL,
)
"""What stands in quotes; one that nothing closes goes on to the end."""

_TYPES = {
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "timeout_error": 408,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
    "validation": 422,  # TGI's words
    "generation": 424,
    "overloaded": 429,
}
"""The status that an error's type or code stands for where it comes without one."""
_CODES = ("code", "type", "error_type", "status", "reason")
_MESSAGES = ("message", "detail", "msg", "error")
_WITHIN = ("error", "errors", "detail", "details", "innererror", "metadata", "message")
_RAW = "raw"
"""OpenRouter: what the provider behind it answered, as text."""
_DEEPEST = 5


def refusal(status: int, headers: Mapping[str, str], body: str) -> BackendError:
    """The failure that an answer other than a stream is."""
    wait = retry_after(status, headers, body)
    return BackendError(classify(status, body), f"status {status}", wait)


def refusal_inside(error: Any) -> BackendError:
    """The failure that an error object inside a 200 is: that of its code, where it has one."""
    text = json.dumps(error)
    status = _status_inside(error)
    if status:
        return BackendError(
            classify(status, text), "an error inside the stream", retry_after(status, {}, text)
        )
    error_class = classify(400, text)
    if error_class is ErrorClass.CALLER_INVALID_REQUEST:  # it had accepted the request
        error_class = ErrorClass.PROVIDER_UNAVAILABLE
    return BackendError(error_class, "an error inside the stream")


def classify(status: int, body: str) -> ErrorClass:
    """The error class of an HTTP status and what the body says."""
    said = _said(body)
    for rule in RULES:
        if rule.fits(status, said):
            return rule.error_class
    if status >= 500:
        return ErrorClass.PROVIDER_UNAVAILABLE
    return _STATUSES.get(status, ErrorClass.PROVIDER_PROTOCOL)


def _status_inside(error: Any) -> int | None:
    if not isinstance(error, dict):
        return None
    for key in ("status_code", "code", "type", "status"):
        value = error.get(key)
        if isinstance(value, str):
            value = _TYPES.get(value.lower(), value)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:4])
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _said(body: str) -> Said:
    told = list(_told(body, 0))
    whole = [text for is_code, text in told if not is_code]
    prose = [_QUOTED.sub(" ", text).strip() for text in whole]
    return Said([text for is_code, text in told if is_code], whole, prose)


def _told(body: str, depth: int) -> Iterator[tuple[bool, str]]:
    """Each field of a body, and whether it is one of codes."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = body
    for is_code, text in _texts(told, depth):
        yield is_code, text.strip().lower()


def _texts(told: Any, depth: int) -> Iterator[tuple[bool, str]]:
    if isinstance(told, str):
        yield False, told
    if depth > _DEEPEST:
        return
    if isinstance(told, list):
        for entry in told:
            yield from _texts(entry, depth + 1)
    if isinstance(told, dict):
        for key in (*_CODES, *_MESSAGES):
            if isinstance(told.get(key), str):
                yield key in _CODES and _is_word(told[key]), told[key]
        for key in _WITHIN:
            if isinstance(told.get(key), dict | list):
                yield from _texts(told[key], depth + 1)
        if isinstance(told.get(_RAW), str):
            yield from _told(told[_RAW], depth + 1)


def _is_word(text: str) -> bool:
    """xAI's codes are sentences, and a sentence may quote what the caller wrote."""
    return len(text.split()) == 1
