"""What the Messages API is asked: the JSON body.

What the API cannot express is refused before anything is sent, never left out.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from semroute_service.backends.base import BackendError
from semroute_service.decision import ErrorClass
from semroute_service.query import (
    Image,
    NamedTool,
    Parameter,
    Role,
    ToolCall,
    ToolChoice,
    ToolResult,
)

if TYPE_CHECKING:
    from semroute_service.backends.base import ChatRequest
    from semroute_service.profile import Model
    from semroute_service.query import JsonFormat, Message, Options, Part, Sampling

DEFAULT_MAX_TOKENS = 4096
"""How long an answer may be where nobody says; the API wants to be told."""
MAX_TEMPERATURE = 1.0
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_DATA_URL = re.compile(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/]+=*)")
_NO_ID = re.compile(r"[^A-Za-z0-9_-]")
_CHOICES = {ToolChoice.AUTO: "auto", ToolChoice.NONE: "none", ToolChoice.REQUIRED: "any"}

Json = dict[str, Any]


def request_body(request: ChatRequest) -> Json:
    """The body; raises ``BackendError`` for what the API cannot express.

    The provider's ``body`` and the model's ``extra_body`` add fields, such as ``thinking``; they
    override none that the request itself sets.
    """
    model, options = request.model, request.options
    extra = model.backend.provider.body_with(model.extra_body)
    body: Json = {
        "model": model.id,
        "max_tokens": options.sampling.max_tokens or _default_length(model, extra),
        "messages": _conversation(request.messages, extra),
        "stream": True,
        **_system(request.messages),
        **_sampling(options.sampling, model),
        **_tools(options),
    }
    if options.response_format:
        config = extra.pop("output_config", {})  # it may say how much effort to make
        body["output_config"] = config | {"format": _format(options.response_format)}
    return extra | body


def _refused(why: str) -> BackendError:
    return BackendError(ErrorClass.CALLER_INVALID_REQUEST, f"not asked: {why}")


def _default_length(model: Model, extra: Json) -> int:
    """A length for the answer itself: what it may think beforehand comes on top."""
    budget = _thinking(extra).get("budget_tokens")
    length = DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)
    return min(length, model.context or length)


def _thinking(extra: Json) -> Json:
    thinking = extra.get("thinking")
    return thinking if isinstance(thinking, dict) else {}


def _sampling(sampling: Sampling, model: Model) -> Json:
    """Without what the model refuses: governance has denied callers that set it, and a row's own
    temperature gives way."""
    if sampling.seed is not None:
        raise _refused("the API takes no seed")
    if (sampling.temperature or 0) > MAX_TEMPERATURE:
        raise _refused(f"the API takes a temperature of at most {MAX_TEMPERATURE:g}")
    wanted = {
        Parameter.TEMPERATURE: ("temperature", sampling.temperature),
        Parameter.TOP_P: ("top_p", sampling.top_p),
        Parameter.STOP: ("stop_sequences", list(sampling.stop) or None),
    }
    taken = (field for parameter, field in wanted.items() if parameter not in model.refuses)
    return {name: value for name, value in taken if value is not None}


def _format(wanted: JsonFormat) -> Json:
    if wanted.schema is None:
        raise _refused("the API takes JSON output with a schema only")
    return {"type": "json_schema", "schema": wanted.schema}


def _tools(options: Options) -> Json:
    if not options.tools:
        return {}
    described = [
        {"name": t.name, "description": t.description, "input_schema": t.parameters}
        for t in options.tools
    ]
    body: Json = {"tools": [{k: v for k, v in tool.items() if v} for tool in described]}
    match options.tool_choice:
        case NamedTool(name):
            body["tool_choice"] = {"type": "tool", "name": name}
        case ToolChoice() as choice:
            body["tool_choice"] = {"type": _CHOICES[choice]}
    return body


def _system(messages: tuple[Message, ...]) -> Json:
    texts = [m.text for m in messages if m.role is Role.SYSTEM and m.text.strip()]
    return {"system": "\n\n".join(texts)} if texts else {}


def _conversation(messages: tuple[Message, ...], extra: Json) -> list[Json]:
    """The turns, those of one side after each other as one: user and assistant alternate."""
    turns: list[Json] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = [_block(p) for p in message.parts if not isinstance(p, str) or p.strip()]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=_is_no_result)  # results stand before all else in their turn
    if not turns or turns[-1]["role"] == "assistant":
        raise _refused("the conversation ends with an assistant message, which it would go on with")
    if _thinking(extra).get("type") == "enabled" and not _is_no_result(turns[-1]["content"][0]):
        what = "with thinking of the type enabled, the API wants its own thoughts back beside"
        raise _refused(f"{what} the results of tools; models that can do so have type adaptive")
    return turns


def _is_no_result(block: Json) -> bool:
    return bool(block["type"] != "tool_result")


def _block(part: Part) -> Json:
    match part:
        case ToolCall():
            return {
                "type": "tool_use",
                "id": _identifier(part.id),
                "name": part.name,
                "input": _arguments(part),
            }
        case ToolResult():
            block = {"type": "tool_result", "tool_use_id": _identifier(part.tool_call_id)}
            return block | ({"content": part.text} if part.text else {})
        case Image():
            return {"type": "image", "source": _source(part)}
        case _:
            return {"type": "text", "text": part}


def _identifier(name: str) -> str:
    """A call's id in the letters that the API takes; that of another provider may hold more."""
    return _NO_ID.sub("_", name)


def _arguments(call: ToolCall) -> Any:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise _refused("the arguments of a tool call are no JSON object")
    return arguments


def _source(image: Image) -> Json:
    if image.url and not image.url.startswith("data:"):
        return {"type": "url", "url": image.url}
    media_type, data = image.media_type, base64.b64encode(image.data).decode()
    if image.url:
        found = _DATA_URL.fullmatch(image.url)
        if not found:
            raise _refused("a data URL holds no base64")
        media_type, data = found[1], found[2]
    if media_type not in _IMAGES:
        raise _refused(f"the API takes images of the types {', '.join(sorted(_IMAGES))}")
    return {"type": "base64", "media_type": media_type, "data": data}
