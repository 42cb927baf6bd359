"""Requests in. Whatever cannot be meant is refused here, all of it at once, with its field."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, TypeVar

from semroute.v1 import router_pb2 as pb
from semroute_service.embedding import EmbedAsk
from semroute_service.errors import InvalidRequestError
from semroute_service.query import (
    Caller,
    Capability,
    Image,
    JsonFormat,
    Message,
    NamedTool,
    Objective,
    Options,
    Part,
    Preferences,
    Query,
    Role,
    Sampling,
    Sensitivity,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from semroute_service.router import Ask

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

MAX_BATCH = 1000
MAX_NAME = 128
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_ROLES: dict[int, Role] = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_SENSITIVITIES: dict[int, Sensitivity | None] = {
    pb.SENSITIVITY_UNSPECIFIED: None,
    pb.SENSITIVITY_PUBLIC: Sensitivity.PUBLIC,
    pb.SENSITIVITY_INTERNAL: Sensitivity.INTERNAL,
    pb.SENSITIVITY_CONFIDENTIAL: Sensitivity.CONFIDENTIAL,
    pb.SENSITIVITY_RESTRICTED: Sensitivity.RESTRICTED,
}
_OBJECTIVES: dict[int, Objective | None] = {
    pb.OBJECTIVE_UNSPECIFIED: None,
    pb.OBJECTIVE_COST: Objective.COST,
    pb.OBJECTIVE_LATENCY: Objective.LATENCY,
    pb.OBJECTIVE_QUALITY: Objective.QUALITY,
    pb.OBJECTIVE_BALANCED: Objective.BALANCED,
}
_CAPABILITIES: dict[int, Capability] = {
    pb.CAPABILITY_CHAT: Capability.CHAT,
    pb.CAPABILITY_TOOLS: Capability.TOOLS,
    pb.CAPABILITY_IMAGES: Capability.IMAGES,
    pb.CAPABILITY_JSON_SCHEMA: Capability.JSON_SCHEMA,
    pb.CAPABILITY_REASONING: Capability.REASONING,
    pb.CAPABILITY_EMBEDDING: Capability.EMBEDDING,
}
_TOOL_CHOICES: dict[int, ToolChoice | None] = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: None,
    pb.TOOL_CHOICE_MODE_AUTO: ToolChoice.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ToolChoice.NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED: ToolChoice.REQUIRED,
}


def read_decide(request: pb.DecideRequest) -> Ask:
    """Raises ``InvalidRequestError`` with every violation."""
    reader = _Reader()
    query = reader.query(request.query)
    preferences = reader.preferences(request.preferences)
    reader.finish()
    assert query
    return Ask(query, request.profile, preferences)


def read_complete(request: pb.CompleteRequest) -> Ask:
    """Raises ``InvalidRequestError`` with every violation."""
    reader = _Reader()
    query = reader.query(request.query)
    preferences = reader.preferences(request.preferences)
    options = reader.options(request)
    reader.finish()
    assert query
    return Ask(query, request.profile, preferences, options)


def read_embed(request: pb.EmbedRequest) -> EmbedAsk:
    """What is to be embedded; raises ``InvalidRequestError`` with every violation."""
    reader = _Reader()
    if not request.texts:
        reader.complain("texts", "is empty; give at least one text")
    if len(request.texts) > MAX_BATCH:
        reader.complain("texts", f"holds {len(request.texts)}; at most {MAX_BATCH} at a time")
    for i, text in enumerate(request.texts):
        if not text.strip():
            reader.complain(f"texts[{i}]", "is empty")
    caller = reader.caller(request.caller, "caller")
    reader.finish()
    return EmbedAsk(list(request.texts), caller, request.profile, request.model)


class _Reader:
    """Reads one request, gathering what is wrong with it."""

    def __init__(self) -> None:
        self._violations: list[tuple[str, str]] = []

    def complain(self, field: str, what: str) -> None:
        self._violations.append((field, what))

    def finish(self) -> None:
        if self._violations:
            raise InvalidRequestError(*self._violations)

    def query(self, query: pb.Query) -> Query | None:
        messages = [
            self._message(message, f"query.messages[{i}]")
            for i, message in enumerate(query.messages)
        ]
        caller = self.caller(query.caller, "query.caller")
        self._name("query.session_id", query.session_id)
        users = [m for m in messages if m and m.role is Role.USER]
        if not query.messages:
            self.complain("query.messages", "is empty; give at least one user message")
        elif not users and not self._violations:
            self.complain("query.messages", "has no user message, and that is what is routed")
        elif users and not self._violations and not any(m.text.strip() for m in users):
            self.complain("query.messages", "no user message has text to route by")
        if self._violations:
            return None
        return Query(tuple(m for m in messages if m), caller, query.session_id)

    def caller(self, caller: pb.Caller, field: str) -> Caller:
        self._name(f"{field}.tenant", caller.tenant)
        self._name(f"{field}.region", caller.region)
        return Caller(
            tenant=caller.tenant,
            region=caller.region,
            sensitivity=self._enum(f"{field}.sensitivity", caller.sensitivity, _SENSITIVITIES),
            local_only=caller.local_only,
        )

    def preferences(self, preferences: pb.Preferences) -> Preferences:
        required = [
            self._enum(f"preferences.required_capabilities[{i}]", capability, _CAPABILITIES)
            for i, capability in enumerate(preferences.required_capabilities)
        ]
        max_cost = None
        if preferences.HasField("max_cost_nano_usd"):
            max_cost = preferences.max_cost_nano_usd
            if max_cost < 0:
                self.complain("preferences.max_cost_nano_usd", "must not be negative")
        return Preferences(
            objective=self._enum("preferences.objective", preferences.objective, _OBJECTIVES),
            max_cost_nano_usd=max_cost,
            required=frozenset(capability for capability in required if capability),
            model=preferences.model,
            explain=preferences.explain,
        )

    def options(self, request: pb.CompleteRequest) -> Options:
        tools = tuple(self._tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools))
        names = [tool.name for tool in tools]
        if len(set(names)) < len(names):
            self.complain("tools", "two tools have the same name")
        return Options(
            sampling=self._sampling(request.sampling),
            tools=tools,
            tool_choice=self._tool_choice(request, names),
            response_format=self._response_format(request.response_format),
            allow_restart=request.allow_restart,
        )

    def _message(self, message: pb.Message, field: str) -> Message | None:
        role = self._enum(f"{field}.role", message.role, _ROLES)
        if role is None:
            return None
        parts = [self._part(p, f"{field}.parts[{i}]", role) for i, p in enumerate(message.parts)]
        found: list[Part] = [part for part in parts if part is not None]
        if message.text:
            found.insert(0, message.text)
        if role is Role.TOOL:
            if message.text or not all(isinstance(part, ToolResult) for part in found) or not found:
                self.complain(field, "a tool message holds tool_result parts and nothing else")
        elif None not in parts and not any(
            not isinstance(part, str) or part.strip() for part in found
        ):
            self.complain(f"{field}.text", "is empty")
        return Message(role, tuple(found))

    def _part(self, part: pb.Part, field: str, role: Role) -> Part | None:
        kind = part.WhichOneof("content")
        allowed = {"image": Role.USER, "tool_call": Role.ASSISTANT, "tool_result": Role.TOOL}
        if kind in allowed and role is not allowed[kind]:
            self.complain(f"{field}.{kind}", f"stands only in {allowed[kind]} messages")
            return None
        match kind:
            case "text":
                return part.text
            case "image":
                return self._image(part.image, f"{field}.image")
            case "tool_call":
                call = part.tool_call
                self._json_object(f"{field}.tool_call.arguments", call.arguments)
                if not call.id or not call.name:
                    self.complain(f"{field}.tool_call", "needs an id and a name")
                return ToolCall(call.id, call.name, call.arguments or "{}")
            case "tool_result":
                if not part.tool_result.tool_call_id:
                    self.complain(f"{field}.tool_result.tool_call_id", "is empty")
                return ToolResult(part.tool_result.tool_call_id, part.tool_result.text)
        self.complain(field, "is empty; give text, image, tool_call or tool_result")
        return None

    def _image(self, image: pb.Image, field: str) -> Image | None:
        if image.WhichOneof("source") == "data" and image.data:
            if not image.media_type.startswith("image/"):
                self.complain(f"{field}.media_type", "must say which, such as image/png")
            return Image(data=image.data, media_type=image.media_type)
        if image.url.startswith(("https://", "http://", "data:image/")):
            return Image(url=image.url)
        self.complain(field, "needs data, or an http, https or data URL")
        return None

    def _sampling(self, sampling: pb.Sampling) -> Sampling:
        max_tokens = sampling.max_tokens if sampling.HasField("max_tokens") else None
        if max_tokens is not None and max_tokens < 1:
            self.complain("sampling.max_tokens", "must be at least 1")
        if any(not stop for stop in sampling.stop):
            self.complain("sampling.stop", "holds an empty text")
        return Sampling(
            temperature=self._number(sampling, "temperature", 0, 2),
            top_p=self._number(sampling, "top_p", 0, 1),
            max_tokens=max_tokens,
            stop=tuple(sampling.stop),
            seed=sampling.seed if sampling.HasField("seed") else None,
        )

    def _number(self, sampling: pb.Sampling, name: str, low: float, high: float) -> float | None:
        if not sampling.HasField(name):
            return None
        value = float(getattr(sampling, name))
        if not math.isfinite(value) or not low <= value <= high or (name == "top_p" and not value):
            least = "above 0" if name == "top_p" else f"at least {low}"
            self.complain(f"sampling.{name}", f"must be {least} and at most {high}")
        return value

    def _tool(self, tool: pb.Tool, field: str) -> Tool:
        if not _TOOL_NAME.fullmatch(tool.name):
            self.complain(f"{field}.name", "must be 1 to 64 letters, digits, underscores or dashes")
        parameters = self._json_object(f"{field}.parameters_schema", tool.parameters_schema)
        return Tool(tool.name, tool.description, parameters or {"type": "object", "properties": {}})

    def _tool_choice(
        self, request: pb.CompleteRequest, names: list[str]
    ) -> ToolChoice | NamedTool | None:
        choice = request.tool_choice
        if choice.WhichOneof("choice") == "tool":
            if choice.tool not in names:
                self.complain("tool_choice.tool", f'"{choice.tool}" is not among the tools')
            return NamedTool(choice.tool)
        mode = self._enum("tool_choice.mode", choice.mode, _TOOL_CHOICES)
        if mode is ToolChoice.REQUIRED and not names:
            self.complain("tool_choice.mode", "requires a tool, but there are no tools")
        return mode

    def _response_format(self, wanted: pb.ResponseFormat) -> JsonFormat | None:
        if wanted.schema and wanted.type != pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA:
            self.complain("response_format.type", "must be JSON_SCHEMA where a schema is given")
        match wanted.type:
            case pb.RESPONSE_FORMAT_TYPE_UNSPECIFIED | pb.RESPONSE_FORMAT_TYPE_TEXT:
                return None
            case pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT:
                return JsonFormat()
            case pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA:
                if not wanted.schema.strip():
                    self.complain("response_format.schema", "is required with JSON_SCHEMA")
                schema = self._json_object("response_format.schema", wanted.schema)
                return JsonFormat(schema or {}, wanted.name or "answer", wanted.strict)
        self.complain("response_format.type", f"{wanted.type} is no known value")
        return None

    def _json_object(self, field: str, text: str) -> dict[str, object] | None:
        if not text.strip():
            return None
        try:
            value = json.loads(text, parse_constant=_no_constant)
            # JSON can escape what UTF-8 cannot hold; it would fail on its way to the backend.
            json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:
            self.complain(field, "is nested too deeply")
            return None
        except ValueError as error:
            self.complain(field, f"is not JSON: {error}")
            return None
        if not isinstance(value, dict):
            self.complain(field, "must be a JSON object")
            return None
        return value

    def _enum(self, field: str, value: int, known: Mapping[int, T]) -> T | None:
        if value not in known:
            self.complain(field, "is not set" if value == 0 else f"{value} is no known value")
            return None
        return known[value]

    def _name(self, field: str, value: str) -> None:
        if len(value) > MAX_NAME:
            self.complain(field, f"is longer than {MAX_NAME} characters")


def _no_constant(name: str) -> None:
    """NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"it has no {name}")
