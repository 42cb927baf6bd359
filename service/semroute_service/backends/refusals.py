"""What an upstream's refusal means: from its status and what its body says to an error class.

Only the fields in which upstreams describe an error are read; many repeat the request beside them,
and what a caller wrote must not decide what its failure is called.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semroute_service.backends.base import BackendError
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


@dataclass(frozen=True, slots=True)
class _Rule:
    """With one of these statuses, one of these phrases means this."""

    error_class: ErrorClass
    statuses: frozenset[int]
    phrases: re.Pattern[str]


def _rule(error_class: ErrorClass, statuses: set[int], *phrases: str) -> _Rule:
    return _Rule(error_class, frozenset(statuses), re.compile("|".join(phrases)))


_RULES = (
    _rule(
        ErrorClass.PROVIDER_CREDENTIALS,
        {400, 403, 429},
        "insufficient_quota",  # OpenAI: a 429 that no waiting heals
        "insufficient.?balance",  # DeepSeek
        "credit balance is too low",  # Anthropic
        "insufficient.?credits",
        "billing_hard_limit",
        "incorrect api key",  # xAI: a 400
        "api key not valid",  # Gemini: a 400
        "api_key_invalid",
        "invalid api key",
        "no connected db",  # LiteLLM's proxy: a 400 for a key that is not its own
    ),
    _rule(
        ErrorClass.POLICY_CONTENT_FILTER,
        {400, 403, 422, 451},
        "content.?filter",  # Azure, Anthropic: "blocked by content filtering policy"
        "responsibleaipolicyviolation",
        "content.?policy",
        "content exists risk",  # DeepSeek
        "requires moderation",  # OpenRouter: a 403
        "input was flagged",
        "violates usage guidelines",  # xAI: a 403
        "guardrail.?intervened",  # Bedrock
    ),
    _rule(
        ErrorClass.CALLER_CONTEXT_LENGTH,
        {400, 413, 422, 500},  # llama.cpp has answered 500
        "context.?length",  # OpenAI, vLLM, DeepSeek, SGLang, LM Studio, Snowflake
        "context.?window",  # OpenAI, llama-cpp-python
        "context.?limit",  # Anthropic: "exceed context limit"
        "context.?size",  # llama.cpp
        "prompt is too long",  # Anthropic, Fireworks
        "prompt too long",  # Ollama, where it does not truncate
        "input is too long",  # Bedrock
        "input is longer than",
        "input token count",  # Gemini
        "maximum prompt length",  # xAI
        "too large for model",  # Mistral: "Prompt contains N tokens ..., too large for model"
        "max_new_tokens. must be",  # TGI, Together
        "must have less than \\d+ tokens",  # TGI
        "reduce the length of",  # Groq
        "too many tokens",
        "maximum number of tokens",
        "token limit exceeded",
    ),
    _rule(
        ErrorClass.PROVIDER_MODEL_NOT_FOUND,
        {400, 403, 404, 422},
        "model.?not.?found",
        "model.?not.?(?:exist|supported|available)",  # DeepSeek, Hugging Face, Together
        "model.{0,200}(?:does not exist|not found)",  # OpenAI, vLLM, Groq, Ollama
        "model_decommissioned",  # Groq
        "server is pinned to",  # transformers serve: a 400
        "invalid model",  # Mistral, LiteLLM
        "invalid_model",
        "not a valid model",  # OpenRouter
        "no such model",  # Cloudflare
        "unknown model",
        "model identifier is invalid",  # Bedrock
        "deploymentnotfound",  # Azure
    ),
    _rule(
        ErrorClass.PROVIDER_PROTOCOL,
        {404},
        "^not found$",  # FastAPI's and others' word for a path that they do not have
        "page not found",
        "invalid url",
        "<html",
        "<!doctype",
    ),
)
"""The first that fits goes before what the status means by itself."""

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
_TELLING = ("message", "code", "type", "error_type", "status", "reason", "detail", "msg", "error")
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
    for rule in _RULES:
        if status in rule.statuses and any(rule.phrases.search(text) for text in said):
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


def _said(body: str) -> list[str]:
    """What a body says of the error, in lower case, each field by itself."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return [body.strip().lower()]
    return [text.strip().lower() for text in _texts(told)]


def _texts(told: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(told, str):
        yield told
    if depth > _DEEPEST:
        return
    if isinstance(told, list):
        for entry in told:
            yield from _texts(entry, depth + 1)
    if isinstance(told, dict):
        for key in _TELLING:
            if isinstance(told.get(key), str):
                yield told[key]
        for key in _WITHIN:
            if isinstance(told.get(key), dict | list):
                yield from _texts(told[key], depth + 1)
        if isinstance(told.get(_RAW), str):
            yield from _said(told[_RAW])
