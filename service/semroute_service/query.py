"""What a caller asks, in the program's own words; no wire type and no file format reaches here."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import TypeAlias


class Role(enum.StrEnum):
    """Who wrote a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Sensitivity(enum.IntEnum):
    """How carefully data must be handled; ordered."""

    PUBLIC = 1
    INTERNAL = 2
    CONFIDENTIAL = 3
    RESTRICTED = 4


class Capability(enum.StrEnum):
    """Something that a model can or cannot do."""

    CHAT = "chat"
    TOOLS = "tools"
    IMAGES = "images"
    JSON_SCHEMA = "json_schema"
    REASONING = "reasoning"
    EMBEDDING = "embedding"


class Parameter(enum.StrEnum):
    """A setting of a completion that some providers refuse, or know by another name."""

    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    MAX_TOKENS = "max_tokens"
    STOP = "stop"
    SEED = "seed"
    TOOL_CHOICE = "tool_choice"
    JSON_OBJECT = "json_object"
    """An answer in JSON without a schema."""


class Objective(enum.StrEnum):
    """What the caller wants most from the choice of model."""

    COST = "cost"
    LATENCY = "latency"
    QUALITY = "quality"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, by address or by value; exactly one of ``url`` and ``data`` is set."""

    url: str = ""
    data: bytes = b""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asked for; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered."""

    tool_call_id: str
    text: str


Part: TypeAlias = str | Image | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The message's texts, one below the other."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Caller:
    """What governance may ask about the one who asks. Unset fields restrict nothing."""

    tenant: str = ""
    region: str = ""
    sensitivity: Sensitivity | None = None
    local_only: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A conversation to be routed, oldest message first, with at least one user message."""

    messages: tuple[Message, ...]
    caller: Caller = Caller()
    session_id: str = ""

    @property
    def text(self) -> str:
        """What is routed: the text of the last user message that has any."""
        return self._turns[-1]

    @property
    def previous(self) -> str:
        """The user's turn before that; empty where there was none."""
        turns = self._turns
        return turns[-2] if len(turns) > 1 else ""

    @property
    def _turns(self) -> list[str]:
        users = (m.text for m in self.messages if m.role is Role.USER)
        return [text for text in users if text.strip()]

    @property
    def needs(self) -> frozenset[Capability]:
        """What the conversation itself asks of a model."""
        parts = [part for message in self.messages for part in message.parts]
        found = set()
        if any(isinstance(part, Image) for part in parts):
            found.add(Capability.IMAGES)
        if any(isinstance(part, ToolCall | ToolResult) for part in parts):
            found.add(Capability.TOOLS)
        return frozenset(found)

    @property
    def prompt_tokens(self) -> int:
        """An estimate of the tokens of the whole conversation, rather too many than too few."""
        texts = sum(len(_spoken(part).encode()) for m in self.messages for part in m.parts)
        images = sum(isinstance(part, Image) for m in self.messages for part in m.parts)
        return texts // 3 + images * _IMAGE_TOKENS + 4 * len(self.messages) + 4


_IMAGE_TOKENS = 1_600


def _spoken(part: Part) -> str:
    match part:
        case str():
            return part
        case ToolCall():
            return part.name + part.arguments
        case ToolResult():
            return part.text
        case Image():
            return ""


@dataclass(frozen=True, slots=True)
class Preferences:
    """The caller's wishes; governance screens whatever they lead to."""

    objective: Objective | None = None
    max_cost_nano_usd: int | None = None
    required: frozenset[Capability] = frozenset()
    model: str = ""
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model should choose its words; None leaves it to the backend."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask the caller to run; ``parameters`` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, object]


class ToolChoice(enum.StrEnum):
    """Whether tools are called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one tool that must be called."""

    name: str


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer is JSON; with a ``schema``, JSON that satisfies it."""

    schema: dict[str, object] | None = None
    name: str = "answer"
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How a completion should be made."""

    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | NamedTool | None = None
    response_format: JsonFormat | None = None
    allow_restart: bool = False

    @property
    def needs(self) -> frozenset[Capability]:
        """What the options ask of a model, beside chat."""
        found = {Capability.CHAT}
        if self.tools:
            found.add(Capability.TOOLS)
        if self.response_format:
            found.add(Capability.JSON_SCHEMA)
        return frozenset(found)

    @property
    def prompt_tokens(self) -> int:
        """An estimate of what they add to the prompt's tokens, rather too many than too few."""
        given: list[object] = [[t.name, t.description, t.parameters] for t in self.tools]
        if self.response_format and self.response_format.schema:
            given.append(self.response_format.schema)
        return sum(len(json.dumps(each)) // 3 + 8 for each in given)

    @property
    def parameters(self) -> frozenset[Parameter]:
        """What is set, and not left to the backend."""
        sampling = self.sampling
        found = {
            Parameter.TEMPERATURE: sampling.temperature is not None,
            Parameter.TOP_P: sampling.top_p is not None,
            Parameter.MAX_TOKENS: sampling.max_tokens is not None,
            Parameter.STOP: bool(sampling.stop),
            Parameter.SEED: sampling.seed is not None,
            Parameter.TOOL_CHOICE: self.tool_choice is not None,
            Parameter.JSON_OBJECT: bool(self.response_format and not self.response_format.schema),
        }
        return frozenset(parameter for parameter, is_set in found.items() if is_set)
