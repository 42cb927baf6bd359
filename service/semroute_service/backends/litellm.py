"""Any model that LiteLLM knows, through its Python API: the extra ``semroute[litellm]``.

The library is imported when it is first needed, in a thread, as that can take some seconds. Its
own retries, fallbacks, caches, callbacks and logs are off: all of that is the router's business.
Keys come from the environment as LiteLLM documents them, unless the profile names an address of
its own, which gets the key of its provider's entry and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semroute_service.backends.base import BackendError, End
from semroute_service.backends.endings import ending_of
from semroute_service.backends.openai_request import request_body
from semroute_service.backends.refusals import classify
from semroute_service.backends.retry_after import retry_after
from semroute_service.backends.values import count_of, text_of
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from semroute_service.backends.base import ChatRequest, Clocks, Event
    from semroute_service.profile import Backend, Model

_MISSING = "the package litellm is not installed; install semroute[litellm]"
_LONGEST_SECONDS = 600.0
"""How long a connection may be silent where the profile sets no limit."""
ERROR_CLASSES = {
    "ContextWindowExceededError": ErrorClass.CALLER_CONTEXT_LENGTH,
    "ContentPolicyViolationError": ErrorClass.POLICY_CONTENT_FILTER,
    "LiteLLMUnknownProvider": ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    "NotFoundError": ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    "AuthenticationError": ErrorClass.PROVIDER_CREDENTIALS,
    "PermissionDeniedError": ErrorClass.PROVIDER_CREDENTIALS,
    "BudgetExceededError": ErrorClass.PROVIDER_CREDENTIALS,
    "RateLimitError": ErrorClass.PROVIDER_RATE_LIMIT,
    "APITimeoutError": ErrorClass.PROVIDER_TIMEOUT,
    "APIConnectionError": ErrorClass.PROVIDER_CONNECT,
    "APIResponseValidationError": ErrorClass.PROVIDER_PROTOCOL,
    "BadRequestError": ErrorClass.CALLER_INVALID_REQUEST,
    "UnprocessableEntityError": ErrorClass.CALLER_INVALID_REQUEST,
    "APIError": ErrorClass.PROVIDER_UNAVAILABLE,
}
"""What LiteLLM's exceptions mean, by the nearest name in their line of descent."""
_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
"""Keeps the import from fetching lists from the internet and from reading a ``.env``."""
_SETTINGS: dict[str, Any] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "disable_token_counter": True,  # a figure that the upstream did not report is no report
    "drop_params": False,
    "modify_params": False,
    "num_retries": None,
    "cache": None,
}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
_CALLBACKS = (
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "callbacks",
)


class LiteLLMBackend:
    """Whatever the model's id names, such as ``bedrock/...`` or ``vertex_ai/...``."""

    def __init__(self) -> None:
        self._library: Any = None

    async def prepare(self) -> None:
        """Import the library; raises ``BackendError`` where it is not installed."""
        self._library = self._library or await asyncio.to_thread(_load)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        backend = request.model.backend
        call = {
            **request_body(request),
            **_address(backend),
            **_limits(request.clocks),
        }
        try:
            await self.prepare()
            self._check(request.model)
            answer = await self._library.acompletion(**call)
            async with contextlib.aclosing(answer):
                async for event in _events(answer, backend.provider.finish_reasons):
                    yield event
        except BackendError:
            raise
        except Exception as error:
            raise _translated(error) from error

    def _check(self, model: Model) -> None:
        """LiteLLM would call an id that it cannot place the caller's mistake."""
        try:
            self._library.get_llm_provider(model.id)
        except Exception as error:
            what = "LiteLLM knows no provider for the model's id"
            raise BackendError(ErrorClass.PROVIDER_MODEL_NOT_FOUND, what) from error


def _load() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        library = importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        raise BackendError(ErrorClass.PROVIDER_PROTOCOL, _MISSING) from error
    except Exception as error:  # it imports much, and any of it may not fit
        what = f"LiteLLM cannot be imported: {type(error).__name__}"
        raise BackendError(ErrorClass.PROVIDER_PROTOCOL, what) from error
    for name, value in _SETTINGS.items():
        setattr(library, name, value)
    for name in _CALLBACKS:
        setattr(library, name, [])
    for name in _LOGGERS:  # they repeat prompts and what upstreams answer
        logging.getLogger(name).disabled = True
    return library


def _address(backend: Backend) -> dict[str, Any]:
    """Where to, and with which key; empty leaves both to LiteLLM."""
    key = backend.provider.key().strip()
    if backend.url:
        # Without a key LiteLLM would send that of the model's usual provider.
        return {"api_base": backend.url, "api_key": key or "none"}
    return {"api_key": key} if key else {}


def _limits(clocks: Clocks) -> dict[str, Any]:
    """One try, within the clocks; LiteLLM knows one for the connection, the headers and bytes."""
    both = (clocks.headers or _LONGEST_SECONDS, clocks.idle_bytes or _LONGEST_SECONDS)
    return {
        "timeout": max(both),
        "stream_options": {"include_usage": True},
        "num_retries": 0,
        "fallbacks": None,
        "caching": False,
        "no-log": True,
    }


async def _events(answer: Any, own: Mapping[str, str]) -> AsyncGenerator[Event, None]:
    word = ""
    usage: Usage | None = None
    async for chunk in answer:
        for choice in chunk.choices[:1]:
            word = choice.finish_reason or word
            if delta := _delta(choice.delta):
                yield delta
        if told := _usage(getattr(chunk, "usage", None)):
            usage = told if word else replace(told, estimated=True)
    yield End(_reason(word, getattr(answer, "received_finish_reason", None), own), usage)


def _reason(word: str, told: Any, own: Mapping[str, str]) -> FinishReason:
    """What the answer's end means: ``told`` is what LiteLLM heard, ``word`` what it makes of that.

    It makes up a reason where a stream just stops, calls what it does not know "stop", and knows
    that tools were called where the upstream says "stop".
    """
    if not word or not told:
        raise BackendError(
            ErrorClass.PROVIDER_INTERRUPTED, "the stream ended without a finish reason"
        )
    reason = ending_of(str(told), own)
    return ending_of(word, own) if reason is FinishReason.STOP else reason


def _delta(delta: Any) -> Delta:
    calls = getattr(delta, "tool_calls", None) or ()
    return Delta(
        text=text_of(getattr(delta, "content", None)),
        reasoning=text_of(getattr(delta, "reasoning_content", None)),
        tool_calls=tuple(
            ToolCallDelta(
                index=count_of(call.index),
                id=text_of(call.id),
                name=text_of(call.function.name),
                arguments=text_of(call.function.arguments),
            )
            for call in calls
        ),
    )


def _usage(usage: Any) -> Usage | None:
    """None where there are no figures, or such as cannot be true; they are estimated then."""
    prompt = getattr(usage, "prompt_tokens_details", None)
    completion = getattr(usage, "completion_tokens_details", None)
    try:
        read = Usage(
            prompt_tokens=count_of(getattr(usage, "prompt_tokens", None)),
            completion_tokens=count_of(getattr(usage, "completion_tokens", None)),
            cached_tokens=count_of(getattr(prompt, "cached_tokens", None)),
            reasoning_tokens=count_of(getattr(completion, "reasoning_tokens", None)),
        )
    except ValueError:
        return None
    return read if read.prompt_tokens or read.completion_tokens else None


def _translated(error: Exception) -> BackendError:
    """LiteLLM's exception in our words. Its message repeats what the upstream said, and stays."""
    error = getattr(error, "original_exception", None) or error
    detail = f"{type(error).__name__} from LiteLLM"
    names = (kind.__name__ for kind in type(error).__mro__)
    error_class = next(
        (ERROR_CLASSES[name] for name in names if name in ERROR_CLASSES),
        ErrorClass.PROVIDER_PROTOCOL,
    )
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return BackendError(error_class, detail)
    if error_class is ErrorClass.PROVIDER_UNAVAILABLE:  # only its status says more
        error_class = classify(status, "")
    headers = getattr(error, "litellm_response_headers", None) or {}
    return BackendError(error_class, detail, retry_after(status, headers))
