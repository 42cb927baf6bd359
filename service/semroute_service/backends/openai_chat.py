"""Any OpenAI-compatible server: POST {url}/chat/completions, streamed.

vLLM, Ollama, SGLang, llama.cpp and most clouds speak it. What differs between them stands in the
catalogue, not here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

from semroute_service.backends.base import BackendError, End
from semroute_service.backends.http import classify
from semroute_service.backends.sse import EventParser, EventTooLongError
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage
from semroute_service.query import Image, NamedTool, Parameter, Role, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from semroute_service.backends.base import ChatRequest, Event
    from semroute_service.backends.http import HttpClient
    from semroute_service.profile import Provider
    from semroute_service.query import Message, Options, Part

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
}
_BREAKS = frozenset({"abort", "aborted", "cancelled", "error", "insufficient_system_resource"})
"""Finish reasons that say that the answer is not whole."""
_MAX_MALFORMED = 20
_MAX_COUNT = 2**31 - 1
_AFTER_FINISH_SECONDS = 2.0
"""How long to wait, after the finish reason, for the usage that may follow it."""


class OpenAIChatBackend:
    """One endpoint. The key is read from the environment at every call and kept nowhere."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        backend = request.model.backend
        body = request_body(request, backend.provider)
        async with self._http.post(backend, "/chat/completions", body) as chunks:
            reader = _StreamReader()
            parser = EventParser()
            try:
                async for chunk in chunks:
                    for delta in reader.read(parser.feed(chunk)):
                        yield delta
                    if reader.is_over:
                        break
                    if reader.finish:
                        await _drain(chunks, parser, reader)
                        break
                else:
                    for delta in reader.read(parser.close()):
                        yield delta
            except EventTooLongError as error:
                raise BackendError(ErrorClass.PROVIDER_PROTOCOL, str(error)) from None
        if reader.finish is None:
            raise BackendError(
                ErrorClass.PROVIDER_INTERRUPTED, "the stream ended without a finish reason"
            )
        yield End(reader.finish, reader.usage)


async def _drain(chunks: Any, parser: EventParser, reader: _StreamReader) -> None:
    """Read on for the usage. The answer is whole already, so nothing here can spoil it."""
    try:
        async with asyncio.timeout(_AFTER_FINISH_SECONDS):
            async for chunk in chunks:
                reader.read(parser.feed(chunk))
                if reader.is_over:
                    return
            reader.read(parser.close())
    except (TimeoutError, BackendError, EventTooLongError):
        return


class _StreamReader:
    """Reads the data of events; knows how the answer ended and what it used."""

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self._usage_is_final = False
        self._done = False
        self._malformed = 0

    @property
    def is_over(self) -> bool:
        """Nothing more can matter."""
        return self._done or self._usage_is_final

    def read(self, events: list[bytes]) -> list[Delta]:
        """The deltas in ``events``; texts that arrived together become one."""
        merged: list[Delta] = []
        for data in events:
            delta = self._delta(data)
            if not delta:
                continue
            if merged and not delta.tool_calls and not merged[-1].tool_calls:
                last = merged[-1]
                if not (last.text and delta.reasoning):  # text never moves before reasoning
                    merged[-1] = Delta(last.text + delta.text, last.reasoning + delta.reasoning)
                    continue
            merged.append(delta)
        return merged

    def _delta(self, data: bytes) -> Delta:
        if data == b"[DONE]":
            self._done = True
            return Delta()
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return self._skip()
        if not isinstance(chunk, dict):
            return self._skip()
        if chunk.get("error") and self.finish is None:
            raise _error_in_stream(chunk["error"])
        try:
            return self._read_chunk(chunk)
        except (AttributeError, TypeError, ValueError, KeyError, IndexError):
            return self._skip()

    def _read_chunk(self, chunk: dict[str, Any]) -> Delta:
        choice = (chunk.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        calls = enumerate(delta.get("tool_calls") or ())
        piece = Delta(
            text=_text(delta.get("content") or delta.get("refusal")),
            reasoning=_text(delta.get("reasoning_content") or delta.get("reasoning")),
            tool_calls=tuple(_tool_call(call, position) for position, call in calls),
        )
        if choice.get("finish_reason"):
            self.finish = _finish_reason(str(choice["finish_reason"]).lower())
        if chunk.get("usage"):
            self.usage = _usage(chunk["usage"])
            self._usage_is_final = self.finish is not None
        return piece

    def _skip(self) -> Delta:
        """A chunk that cannot be understood is passed over; a stream of them is not."""
        self._malformed += 1
        if self._malformed > _MAX_MALFORMED and self.finish is None:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "too many malformed chunks")
        return Delta()


def _finish_reason(word: str) -> FinishReason:
    if word in _BREAKS:
        raise BackendError(ErrorClass.PROVIDER_INTERRUPTED, f"finish reason {word}")
    return _FINISH_REASONS.get(word, FinishReason.STOP)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    # JSON can escape half a character, which UTF-8 cannot hold.
    return value if value.isascii() else value.encode(errors="replace").decode()


def _count(value: Any) -> int:
    """A number that the wire and the ledger can hold; none is 0."""
    if value is None:
        return 0
    if not isinstance(value, int | float) or not 0 <= value <= _MAX_COUNT:
        raise ValueError
    return int(value)


def _tool_call(call: dict[str, Any], position: int) -> ToolCallDelta:
    function = call.get("function") or {}
    return ToolCallDelta(
        index=_count(call.get("index", position)),
        id=_text(call.get("id")),
        name=_text(function.get("name")),
        arguments=_text(function.get("arguments")),
    )


def _usage(usage: Any) -> Usage | None:
    """None where the figures cannot be true; they are estimated then."""
    try:
        prompt = usage.get("prompt_tokens_details") or {}
        completion = usage.get("completion_tokens_details") or {}
        read = Usage(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            cached_tokens=_count(prompt.get("cached_tokens")),
            reasoning_tokens=_count(completion.get("reasoning_tokens")),
        )
    except (AttributeError, ValueError):
        return None
    return read if read.prompt_tokens or read.completion_tokens else None


def _error_in_stream(error: Any) -> BackendError:
    """An error object inside a 200: as an answer of its code, where it has one."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        error_class = classify(code, json.dumps(error))
    else:
        error_class = classify(400, json.dumps(error))
        if error_class is ErrorClass.CALLER_INVALID_REQUEST:
            error_class = ErrorClass.PROVIDER_UNAVAILABLE
    return BackendError(error_class, "an error inside the stream")


def request_body(request: ChatRequest, provider: Provider) -> dict[str, Any]:
    """The JSON body. What the caller left unset is not sent."""
    options = request.options
    sampling = options.sampling
    body: dict[str, Any] = {
        "model": request.model.id,
        "messages": [entry for message in request.messages for entry in _messages(message)],
        "stream": True,
    }
    if provider.usage == "asked":
        body["stream_options"] = {"include_usage": True}
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.max_tokens is not None:
        body[
            provider.quirks_of(request.model.id).rename.get(Parameter.MAX_TOKENS, "max_tokens")
        ] = sampling.max_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return body | _tools(options) | _format(options)


def _tools(options: Options) -> dict[str, Any]:
    if not options.tools:
        return {}
    functions = [
        {"name": t.name, "description": t.description, "parameters": t.parameters}
        for t in options.tools
    ]
    body: dict[str, Any] = {"tools": [{"type": "function", "function": f} for f in functions]}
    match options.tool_choice:
        case NamedTool(name):
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
        case None:
            pass
        case choice:
            body["tool_choice"] = choice.value
    return body


def _format(options: Options) -> dict[str, Any]:
    wanted = options.response_format
    if wanted is None:
        return {}
    if wanted.schema is None:
        return {"response_format": {"type": "json_object"}}
    schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _messages(message: Message) -> list[dict[str, Any]]:
    """One message, or one for each tool result it holds."""
    if message.role is Role.TOOL:
        return [
            {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.text}
            for part in message.parts
            if isinstance(part, ToolResult)
        ]
    entry: dict[str, Any] = {"role": message.role.value}
    spoken = [p for p in message.parts if isinstance(p, str | Image)]
    if any(isinstance(p, Image) for p in spoken):
        entry["content"] = [_content(part) for part in spoken]
    else:
        entry["content"] = message.text
    calls = [p for p in message.parts if isinstance(p, ToolCall)]
    if calls:
        entry["content"] = entry["content"] or None
        entry["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    return [entry]


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        encoded = base64.b64encode(part.data).decode()
        url = part.url or f"data:{part.media_type};base64,{encoded}"
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "text", "text": part}
