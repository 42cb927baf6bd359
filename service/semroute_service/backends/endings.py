"""What upstreams say of how an answer ended: the words that prove an ending, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.backends.base import BackendError
from semroute_service.decision import ErrorClass, FinishReason

if TYPE_CHECKING:
    from collections.abc import Mapping

_STOP = (
    *("stop", "stop_sequence", "stop_str", "stop_string", "stop_token"),
    *("eos", "eos_token", "end", "end_turn", "end_of_turn", "end_of_text", "endoftext"),
    *("complete", "completed", "done", "finish", "finished", "normal"),
)
_LENGTH = (
    *("length", "max_length", "model_length", "context_length", "token_limit"),
    *("max_tokens", "maximum_tokens", "max_new_tokens", "max_completion_tokens"),
    *("max_output", "max_output_tokens", "model_context_window_exceeded"),
)
_TOOL_CALLS = ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls")
_CONTENT_FILTER = (
    *("content_filter", "content_filtered", "guardrail_intervened", "refusal", "sensitive"),
    *("safety", "image_safety", "recitation", "image_recitation", "language", "blocklist"),
    *("prohibited_content", "image_prohibited_content", "spii", "model_armor", "error_toxic"),
)
_ENDINGS = {
    **dict.fromkeys(_STOP, FinishReason.STOP),
    **dict.fromkeys(_LENGTH, FinishReason.LENGTH),
    **dict.fromkeys(_TOOL_CALLS, FinishReason.TOOL_CALLS),
    **dict.fromkeys(_CONTENT_FILTER, FinishReason.CONTENT_FILTER),
}
_SHOWN = 40


def ending_of(word: str, own: Mapping[str, str]) -> FinishReason:
    """What ``word`` says of the answer; ``own`` are the provider's own words, which go first.

    Case and hyphens do not matter, nor what Gemini says after a colon of why it filtered. Raises
    ``BackendError`` for any other word: it may as well mean that the answer is not whole.
    """
    plain = word.strip().lower().replace("-", "_")
    if plain.startswith("content_filter:"):
        plain = "content_filter"
    meant = own.get(word) or own.get(word.lower()) or _ENDINGS.get(plain)
    if meant is None:
        shown = "".join(filter(str.isprintable, word))[:_SHOWN]
        raise BackendError(
            ErrorClass.PROVIDER_INTERRUPTED,
            f"the finish reason {shown!r} is no known end of an answer; if it is one, name it in"
            " the finish_reasons of the provider's entry in the catalogue",
        )
    return FinishReason(meant)
