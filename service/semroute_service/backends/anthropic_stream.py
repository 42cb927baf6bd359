"""How the Messages API streams an answer: blocks that start, grow and stop, one after another.

A stream is read to its stop reason; without one it is an interruption, whatever else has come.
Events and deltas of unknown types are skipped, as the API asks of its clients: signatures,
redacted thinking and the blocks of tools that run at the provider are among them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from semroute_service.backends.base import BackendError
from semroute_service.backends.endings import ending_of
from semroute_service.backends.refusals import classify
from semroute_service.backends.sse import EventParser, EventTooLongError
from semroute_service.backends.values import count_of, text_of
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_ERROR_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that each type of error comes with where it is not inside a stream."""
_COUNTS = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)
_MAX_MALFORMED = 20
_MAX_OPEN_CALLS = 128
_NOTHING = Delta()


@dataclass(slots=True)
class _Call:
    """A tool call that is being written."""

    number: int
    has_arguments: bool
    is_whole: bool
    """True where its arguments came at its start, and nothing can be added to them."""


class StreamReader:
    """Feed it bytes; it returns deltas, and knows how the answer ended and what it used. See
    ``streaming.Reader``."""

    def __init__(self, stop_reasons: Mapping[str, str]) -> None:
        """``stop_reasons`` are the provider's own words for how an answer ended."""
        self._words = stop_reasons
        self.finish: FinishReason | None = None
        self.failure: BackendError | None = None
        self.is_over = False
        """True where nothing more can matter."""
        self._parser = EventParser()
        self._counts: dict[str, Any] = {}
        self._output_is_counted = False
        self._open: dict[int, _Call] = {}
        self._calls = 0
        self._malformed = 0

    def feed(self, chunk: bytes) -> list[Delta]:
        """The deltas in ``chunk``; neighbours of one kind become one, and all keep their order."""
        deltas: list[Delta] = []
        if self.failure:
            return deltas
        try:
            self._read(self._parser.feed(chunk), deltas)
        except BackendError as error:
            self.failure = error
        except EventTooLongError as error:
            self.failure = BackendError(ErrorClass.PROVIDER_PROTOCOL, str(error))
        return deltas

    def close(self) -> list[Delta]:
        """The same for what stands unfinished when the stream ends."""
        return self.feed(b"\n\n")

    @property
    def usage(self) -> Usage | None:
        """None where the figures are missing or cannot be true; they are estimated then.

        Until the last ones have come, those of the output are not of the whole.
        """
        try:
            fresh, read, written, output = (count_of(self._counts.get(name)) for name in _COUNTS)
            thinking = count_of(self._counts.get("thinking_tokens"))
            prompt = count_of(fresh + read + written)  # the API counts cached ones apart
        except ValueError:
            return None
        early = not self._output_is_counted
        return Usage(prompt, output, read, thinking, early) if prompt or output else None

    def _read(self, events: list[bytes], deltas: list[Delta]) -> None:
        for data in events:
            delta = self._delta(data)
            if not delta:
                continue
            joined = _joined(deltas[-1], delta) if deltas else None
            if joined:
                deltas[-1] = joined
            else:
                deltas.append(delta)

    def _delta(self, data: bytes) -> Delta:
        try:
            return self._event(_parsed(data))
        except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
            return self._skip()

    def _event(self, event: dict[str, Any]) -> Delta:
        match event["type"]:
            case "content_block_delta":
                return self._piece(event)
            case "content_block_start":
                return self._start(event["index"], event["content_block"])
            case "content_block_stop":
                return self._stop(event["index"])
            case "message_start":
                self._count(event["message"].get("usage"))
            case "message_delta":
                self._end(event)
            case "message_stop":
                self.is_over = True
            case "error" if self.finish is None:
                raise _failure(event.get("error"))
        return _NOTHING

    def _piece(self, event: dict[str, Any]) -> Delta:
        delta = event["delta"]
        match delta["type"]:
            case "text_delta":
                return Delta(text=text_of(delta["text"]))
            case "thinking_delta":
                return Delta(reasoning=text_of(delta["thinking"]))
            case "input_json_delta":
                return self._arguments(event["index"], text_of(delta["partial_json"]))
        return _NOTHING

    def _start(self, index: int, block: dict[str, Any]) -> Delta:
        match block["type"]:
            case "text":
                return Delta(text=text_of(block.get("text")))
            case "thinking":
                return Delta(reasoning=text_of(block.get("thinking")))
            case "tool_use":
                return self._call(index, block)
        return _NOTHING

    def _call(self, index: int, block: dict[str, Any]) -> Delta:
        if len(self._open) >= _MAX_OPEN_CALLS:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "too many tool calls at a time")
        given = block.get("input")
        arguments = json.dumps(given, allow_nan=False) if given else ""
        piece = ToolCallDelta(self._calls, text_of(block["id"]), text_of(block["name"]), arguments)
        self._open[count_of(index)] = _Call(self._calls, bool(given), bool(given))
        self._calls += 1
        return Delta(tool_calls=(piece,))

    def _arguments(self, index: int, piece: str) -> Delta:
        call = self._open.get(index)
        if call is None or call.is_whole or not piece:
            return _NOTHING
        call.has_arguments = True
        return Delta(tool_calls=(ToolCallDelta(call.number, arguments=piece),))

    def _stop(self, index: int) -> Delta:
        """A call without arguments streams none; callers get the JSON that this means."""
        call = self._open.pop(index, None)
        if call is None or call.has_arguments:
            return _NOTHING
        return Delta(tool_calls=(ToolCallDelta(call.number, arguments="{}"),))

    def _end(self, event: dict[str, Any]) -> None:
        usage = event.get("usage")
        self._count(usage)
        reason = event["delta"].get("stop_reason")
        if reason and self.finish is None:
            self.finish = ending_of(text_of(reason), self._words)
        if self.finish and isinstance(usage, dict) and usage.get("output_tokens") is not None:
            self._output_is_counted = True

    def _count(self, usage: Any) -> None:
        """Take note of figures; each is of the whole answer, and the last one counts."""
        if not isinstance(usage, dict):
            return
        for name in _COUNTS:
            if usage.get(name) is not None:
                self._counts[name] = usage[name]
        details = usage.get("output_tokens_details")
        if isinstance(details, dict):
            self._counts["thinking_tokens"] = details.get("thinking_tokens")

    def _skip(self) -> Delta:
        """An event that cannot be understood is passed over; a stream of them is not."""
        self._malformed += 1
        if self._malformed > _MAX_MALFORMED and self.finish is None:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "too many malformed events")
        return _NOTHING


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        return json.loads(data)  # it forgives what the fast one does not, such as half a character


def _joined(last: Delta, new: Delta) -> Delta | None:
    """Both as one, where they are pieces of the same thing."""
    if new.text:
        return Delta(text=last.text + new.text) if last.text else None
    if new.reasoning:
        return Delta(reasoning=last.reasoning + new.reasoning) if last.reasoning else None
    if not last.tool_calls:
        return None
    (before,), (after,) = last.tool_calls, new.tool_calls
    if before.index != after.index:
        return None
    arguments = before.arguments + after.arguments
    return Delta(tool_calls=(ToolCallDelta(before.index, before.id, before.name, arguments),))


def _failure(error: Any) -> BackendError:
    """An error inside a 200, as an answer of the status that its type stands for."""
    kind = error.get("type") if isinstance(error, dict) else None
    status = _ERROR_STATUSES.get(kind, 500) if isinstance(kind, str) else 500
    return BackendError(
        classify(status, json.dumps({"error": error})), f"an error ({status}) inside the stream"
    )
