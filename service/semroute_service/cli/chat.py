"""Conversations, tools and formats in the words that chat APIs share, as the contract's messages.

Everything raises ``ValueError`` with the place that is wrong; what is not known is refused, so that
nothing is dropped on its way to a model.
"""

from __future__ import annotations

import json
from typing import Any

from semroute.v1 import router_pb2 as pb

_ROLES = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
}
_MODES = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}


def messages(value: Any) -> list[pb.Message]:
    """``[{"role": ..., "content": ...}, ...]``."""
    return [_message(item, f"messages[{i}]") for i, item in enumerate(value)]


def tools(value: Any) -> list[pb.Tool]:
    """``[{"type": "function", "function": {"name": ..., "parameters": ...}}, ...]``."""
    found = []
    for i, item in enumerate(value):
        where = f"tools[{i}].function"
        function = _function(item, f"tools[{i}]")
        _check(function, where, "name", "description", "parameters")
        parameters = function.get("parameters")
        found.append(
            pb.Tool(
                name=_text(function.get("name"), f"{where}.name"),
                description=_text(function.get("description") or "", f"{where}.description"),
                parameters_schema="" if parameters is None else json.dumps(parameters),
            )
        )
    return found


def tool_choice(value: Any) -> pb.ToolChoice:
    """``auto``, ``none``, ``required`` or ``{"type": "function", "function": {"name": ...}}``."""
    if isinstance(value, str):
        if value not in _MODES:
            raise ValueError(f"tool_choice must be one of {', '.join(_MODES)}, or an object")
        return pb.ToolChoice(mode=_MODES[value])
    function = _function(value, "tool_choice")
    _check(function, "tool_choice.function", "name")
    return pb.ToolChoice(tool=_text(function.get("name"), "tool_choice.function.name"))


def response_format(value: Any) -> pb.ResponseFormat:
    """``{"type": "json_schema", "json_schema": {"schema": ...}}``, or another type alone."""
    match _check(value, "response_format", "type", "json_schema"):
        case {"type": "text", **rest} if not rest:
            return pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_TEXT)
        case {"type": "json_object", **rest} if not rest:
            return pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)} as wanted}:
            where = "response_format.json_schema"
            _check(wanted, where, "name", "schema", "strict")
            return pb.ResponseFormat(
                type=pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA,
                name=_text(wanted.get("name") or "", f"{where}.name"),
                schema=json.dumps(schema),
                strict=bool(wanted.get("strict")),
            )
    raise ValueError(
        'response_format.type must be "text", "json_object", or "json_schema" with '
        'json_schema: {"schema": {...}}'
    )


def _message(value: Any, where: str) -> pb.Message:
    item = _check(value, where, "role", "content", "tool_calls", "tool_call_id")
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise ValueError(f"{where}.role must be one of {', '.join(_ROLES)}")
    if role == pb.ROLE_TOOL:
        _check(item, where, "role", "content", "tool_call_id")
        result = pb.ToolResult(
            tool_call_id=_text(item.get("tool_call_id"), f"{where}.tool_call_id"),
            text=_text(item.get("content"), f"{where}.content"),
        )
        return pb.Message(role=role, parts=[pb.Part(tool_result=result)])
    calls = item.get("tool_calls") or []
    _check(item, where, "role", "content", *(["tool_calls"] if role == pb.ROLE_ASSISTANT else []))
    content = item.get("content")
    if content is None and calls:
        content = ""
    parts = [] if isinstance(content, str) else _parts(content, f"{where}.content")
    parts += [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
    return pb.Message(role=role, text=content if isinstance(content, str) else "", parts=parts)


def _parts(value: Any, where: str) -> list[pb.Part]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be text or a list of parts")
    return [_part(part, f"{where}[{i}]") for i, part in enumerate(value)]


def _part(value: Any, where: str) -> pb.Part:
    match value:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return pb.Part(text=text)
        case {"type": "image_url", "image_url": {"url": str(url), **more}, **rest} if not (
            rest or more
        ):
            return pb.Part(image=pb.Image(url=url))
    raise ValueError(
        f'{where} must be {{"type": "text", "text": ...}} or '
        '{"type": "image_url", "image_url": {"url": ...}}'
    )


def _call(value: Any, where: str) -> pb.Part:
    function = _function(value, where, "id")
    _check(function, f"{where}.function", "name", "arguments")
    call = pb.ToolCall(
        id=_text(value.get("id"), f"{where}.id"),
        name=_text(function.get("name"), f"{where}.function.name"),
        arguments=_text(function.get("arguments"), f"{where}.function.arguments"),
    )
    return pb.Part(tool_call=call)


def _function(value: Any, where: str, *keys: str) -> dict[str, Any]:
    item = _check(value, where, "type", "function", *keys)
    if item.get("type") != "function" or not isinstance(item.get("function"), dict):
        raise ValueError(f'{where} must be {{"type": "function", "function": {{...}}}}')
    function: dict[str, Any] = item["function"]
    return function


def _check(value: Any, where: str, *keys: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    for key in value:
        if key not in keys:
            raise ValueError(f"{where}: unknown key {key}; known: {', '.join(sorted(keys))}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text")
    return value
