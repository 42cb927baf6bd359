"""The body of a request in OpenAI's protocol."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

from semroute_service.query import Image, NamedTool, Parameter, Role, ToolCall, ToolResult

if TYPE_CHECKING:
    from semroute_service.backends.base import ChatRequest
    from semroute_service.query import Message, Options, Part

_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_SHORT_ID_PROVIDERS = frozenset({"mistral"})
"""They refuse other ids of tool calls than these; other models' conversations have others."""


def request_body(request: ChatRequest) -> dict[str, Any]:
    """The JSON body. What the caller left unset is not sent, nor what the provider refuses.

    The provider's and the model's further fields stand below all that: they add to it and replace
    nothing.
    """
    model, options = request.model, request.options
    provider = model.backend.provider
    body: dict[str, Any] = {
        "model": model.id,
        "messages": [entry for message in request.messages for entry in _messages(message)],
        "stream": True,
    }
    if provider.usage == "asked":
        body["stream_options"] = {"include_usage": True}
    quirks = provider.quirks_of(model.id)
    for parameter, value in _settings(options).items():
        if value is not None and parameter not in quirks.refuse:
            body[quirks.rename.get(parameter, parameter.value)] = value
    if options.tools:
        body["tools"] = _tools(options)
    if options.response_format:
        body["response_format"] = _format(options)
    if provider.id in _SHORT_ID_PROVIDERS:
        _shorten_ids(body["messages"])
    return {**provider.body_with(model.extra_body), **body}


def _settings(options: Options) -> dict[Parameter, Any]:
    sampling = options.sampling
    return {
        Parameter.TEMPERATURE: sampling.temperature,
        Parameter.TOP_P: sampling.top_p,
        Parameter.MAX_TOKENS: sampling.max_tokens,
        Parameter.STOP: list(sampling.stop) or None,
        Parameter.SEED: sampling.seed,
        Parameter.TOOL_CHOICE: _tool_choice(options),
    }


def _tool_choice(options: Options) -> Any:
    match options.tool_choice:
        case NamedTool(name):
            return {"type": "function", "function": {"name": name}}
        case None:
            return None
        case choice:
            return choice.value if options.tools else None


def _tools(options: Options) -> list[dict[str, Any]]:
    functions = [
        {"name": t.name, "description": t.description, "parameters": t.parameters}
        for t in options.tools
    ]
    return [{"type": "function", "function": f} for f in functions]


def _format(options: Options) -> dict[str, Any]:
    wanted = options.response_format
    assert wanted is not None
    if wanted.schema is None:
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


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


def _shorten_ids(messages: list[dict[str, Any]]) -> None:
    """Give every tool call, and the result that answers it, the same nine letters and digits."""
    for message in messages:
        if "tool_call_id" in message:
            message["tool_call_id"] = _short_id(message["tool_call_id"])
        for call in message.get("tool_calls", ()):
            call["id"] = _short_id(call["id"])


def _short_id(name: str) -> str:
    if _SHORT_ID.fullmatch(name):
        return name
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:9]
