"""Reads a stream in OpenAI's protocol, in all the dialects of the catalogue."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from semroute_service.backends.base import BackendError
from semroute_service.backends.endings import ending_of
from semroute_service.backends.refusals import refusal_inside
from semroute_service.backends.sse import EventParser, EventTooLongError
from semroute_service.backends.values import count_of, text_of
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_MALFORMED = 20
_MAX_CALLS = 1024
_MAX_ID = 512


class StreamReader:
    """Feed it bytes; it returns deltas, and knows how the answer ended and what it used. See
    ``streaming.Reader``."""

    def __init__(self, finish_reasons: Mapping[str, str]) -> None:
        """``finish_reasons`` are the provider's own words for how an answer ended."""
        self._words = finish_reasons
        self.finish: FinishReason | None = None
        self.failure: BackendError | None = None
        self._parser = EventParser()
        self._calls = _Calls()
        self._together = _Together()
        self._usage: Usage | None = None
        self._usage_is_final = False
        self._done = False
        self._malformed = 0

    @property
    def is_over(self) -> bool:
        """Nothing more can matter."""
        return self._done or self._usage_is_final

    @property
    def usage(self) -> Usage | None:
        """What was told before the answer's end is not of the whole, and counts as estimated."""
        if self._usage is None or self._usage_is_final:
            return self._usage
        return replace(self._usage, estimated=True)

    def feed(self, chunk: bytes) -> list[Delta]:
        """The deltas in ``chunk``; those that arrived together are as few as keep their order."""
        return self._read(self._parser.feed, chunk)

    def close(self) -> list[Delta]:
        """The same for what stands unfinished when the stream ends."""
        return self._read(lambda _: self._parser.close(), b"")

    def _read(self, parse: Callable[[bytes], list[bytes]], chunk: bytes) -> list[Delta]:
        if self.failure:
            return []
        try:
            for data in parse(chunk):
                self._take(data)
        except BackendError as error:
            self.failure = error
        except EventTooLongError as error:
            self.failure = BackendError(ErrorClass.PROVIDER_PROTOCOL, str(error))
        return self._together.deltas()

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = _parsed(data)
            if self.finish is None:
                _raise_error(chunk)
            self._take_chunk(chunk)
        except (AttributeError, TypeError, ValueError, LookupError, RecursionError):
            self._skip()

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        choices = chunk.get("choices")
        if choices:
            choice = choices[0]
            delta = choice.get("delta")
            if delta and self.finish is None:  # what follows an answer's end is no part of it
                self._take_delta(delta)
            word = choice.get("finish_reason")
            if word and self.finish is None:
                self.finish = self._finish_reason(str(word))
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        if usage:
            self._usage = _usage(usage)
            self._usage_is_final = self.finish is not None

    def _take_delta(self, delta: dict[str, Any]) -> None:
        together = self._together
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            together.add_reasoning(text_of(reasoning))
        content = delta.get("content") or delta.get("refusal")
        if isinstance(content, list):
            _take_parts(content, together)
        elif content:
            together.add_text(text_of(content))
        calls = delta.get("tool_calls")
        if calls:
            # One that cannot be understood leaves none of them.
            for piece in [self._calls.piece(call) for call in calls]:
                together.add_call(piece)

    def _finish_reason(self, word: str) -> FinishReason:
        reason = ending_of(word, self._words)
        if reason is FinishReason.STOP and self._calls.any:
            return FinishReason.TOOL_CALLS  # Gemini says stop, as OpenAI does of a named tool
        return reason

    def _skip(self) -> None:
        """A chunk that cannot be understood is passed over; a stream of them is not."""
        self._malformed += 1
        if self._malformed > _MAX_MALFORMED and self.finish is None:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "too many malformed chunks")


@dataclass
class _Together:
    """Pieces that arrived together. Within a delta reasoning stands before text, and text before
    tool calls; what would come out of that order begins a delta of its own."""

    _whole: list[Delta] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _calls: dict[int, list[ToolCallDelta]] = field(default_factory=dict)

    def add_reasoning(self, piece: str) -> None:
        if not piece:
            return
        if self._text or self._calls:
            self._begin()
        self._reasoning.append(piece)

    def add_text(self, piece: str) -> None:
        if not piece:
            return
        if self._calls:
            self._begin()
        self._text.append(piece)

    def add_call(self, piece: ToolCallDelta) -> None:
        self._calls.setdefault(piece.index, []).append(piece)

    def deltas(self) -> list[Delta]:
        """What has been added since this was last asked."""
        self._begin()
        deltas, self._whole = self._whole, []
        return deltas

    def _begin(self) -> None:
        if not (self._text or self._reasoning or self._calls):
            return
        calls = tuple(_joined(pieces) for pieces in self._calls.values())
        self._whole.append(Delta("".join(self._text), "".join(self._reasoning), calls))
        self._text.clear()
        self._reasoning.clear()
        self._calls.clear()


def _joined(pieces: list[ToolCallDelta]) -> ToolCallDelta:
    """Pieces of one call as one."""
    if len(pieces) == 1:
        return pieces[0]
    return ToolCallDelta(
        index=pieces[0].index,
        id=next((piece.id for piece in pieces if piece.id), ""),
        name="".join(piece.name for piece in pieces),
        arguments="".join(piece.arguments for piece in pieces),
    )


class _Calls:
    """Which call a piece belongs to, counted from 0 in the order in which they began.

    The upstream's own index says so where it gives one; some leave it out (Gemini), and some give
    the same to calls with different ids.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._places: dict[int, int] = {}

    @property
    def any(self) -> bool:
        return bool(self._ids)

    def piece(self, call: dict[str, Any]) -> ToolCallDelta:
        function = call.get("function") or {}
        name, own = text_of(function.get("name")), text_of(call.get("id"))
        if len(own) > _MAX_ID:
            raise ValueError
        index = call.get("index")
        if index is None:
            place = self._place(own, begins=bool(name))
        else:
            place = self._place_of(count_of(index), own)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        return ToolCallDelta(place, own, name, text_of(arguments))

    def _place_of(self, index: int, own: str) -> int:
        place = self._places.get(index)
        if place is None or (own and self._ids[place] not in {"", own}):
            place = self._places[index] = self._begin(own)
        elif own:
            self._ids[place] = own
        return place

    def _place(self, own: str, *, begins: bool) -> int:
        if own and own in self._ids:
            return self._ids.index(own)
        if own or begins or not self._ids:
            return self._begin(own)
        return len(self._ids) - 1

    def _begin(self, own: str) -> int:
        if len(self._ids) >= _MAX_CALLS:
            raise ValueError
        self._ids.append(own)
        return len(self._ids) - 1


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        chunk = from_json(data, cache_strings="keys")
    except ValueError:
        chunk = json.loads(data)  # it forgives what the fast one does not, such as half a character
    if isinstance(chunk, list) and len(chunk) == 1:
        chunk = chunk[0]  # Google puts an error into an array
    if not isinstance(chunk, dict):
        raise TypeError
    return chunk


def _raise_error(chunk: dict[str, Any]) -> None:
    error = chunk.get("error")
    if error:
        # TGI says what it means beside it.
        told = error if isinstance(error, dict) else {"message": error, **_kind(chunk)}
        raise refusal_inside(told)
    if chunk.get("object") == "error":
        raise refusal_inside(chunk)
    late = chunk.get("x_groq")
    if late and late.get("error"):
        raise refusal_inside(late["error"])


def _kind(chunk: dict[str, Any]) -> dict[str, Any]:
    return {"type": chunk["error_type"]} if "error_type" in chunk else {}


def _take_parts(parts: list[Any], together: _Together) -> None:
    """Content in parts, as Mistral's reasoning models have it."""
    for part in parts:
        if part.get("type") == "thinking":
            for thought in part.get("thinking") or ():
                together.add_reasoning(text_of(thought.get("text")))
        elif part.get("type") == "text":
            together.add_text(text_of(part.get("text")))


def _usage(usage: Any) -> Usage | None:
    """None where the figures cannot be true; they are estimated then."""
    try:
        prompt = usage.get("prompt_tokens_details") or {}
        completion = usage.get("completion_tokens_details") or {}
        sent = count_of(usage.get("prompt_tokens"))
        cached = prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")  # DeepSeek
        read = Usage(
            prompt_tokens=sent,
            # xAI and Google count thoughts, which cost as much as words, in the total only.
            completion_tokens=max(
                count_of(usage.get("completion_tokens")), count_of(usage.get("total_tokens")) - sent
            ),
            cached_tokens=count_of(cached),
            reasoning_tokens=count_of(completion.get("reasoning_tokens")),
        )
    except (AttributeError, ValueError):
        return None
    return read if read.prompt_tokens or read.completion_tokens else None
