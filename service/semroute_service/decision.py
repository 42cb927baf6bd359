"""The decision, and the record of what was done about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from semroute_classifier.classifier import Classification
    from semroute_service.profile import Model, Profile
    from semroute_service.query import Objective


class ErrorClass(enum.StrEnum):
    """Whose fault a failed attempt was, and which kind. The set is closed."""

    CALLER_INVALID_REQUEST = "caller_invalid_request"
    CALLER_CONTEXT_LENGTH = "caller_context_length"
    CALLER_CANCELLED = "caller_cancelled"
    CALLER_DEADLINE = "caller_deadline"
    POLICY_CONTENT_FILTER = "policy_content_filter"
    POLICY_DENIED = "policy_denied"
    PROVIDER_CONNECT = "provider_connect"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_RATE_LIMIT = "provider_rate_limit"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_CREDENTIALS = "provider_credentials"
    PROVIDER_MODEL_NOT_FOUND = "provider_model_not_found"
    PROVIDER_INTERRUPTED = "provider_interrupted"
    PROVIDER_PROTOCOL = "provider_protocol"
    SEMROUTE_HEDGED = "semroute_hedged"
    """Another candidate, asked because this one was slow, was faster."""
    SEMROUTE_INTERNAL = "semroute_internal"

    @property
    def is_final(self) -> bool:
        """True where another candidate must not, or could not, do better."""
        return self in _FINAL

    @property
    def is_retryable(self) -> bool:
        """True where the same candidate may do better in a moment."""
        return self in _RETRYABLE

    @property
    def is_providers(self) -> bool:
        """True where it was the backend's fault, not the caller's and not a denial."""
        return self.value.startswith("provider_")


_FINAL = frozenset(
    {
        ErrorClass.CALLER_INVALID_REQUEST,
        ErrorClass.CALLER_CANCELLED,
        ErrorClass.CALLER_DEADLINE,
        ErrorClass.POLICY_CONTENT_FILTER,
    }
)
_RETRYABLE = frozenset(
    {
        ErrorClass.PROVIDER_CONNECT,
        ErrorClass.PROVIDER_RATE_LIMIT,
        ErrorClass.PROVIDER_UNAVAILABLE,
    }
)


class Outcome(enum.Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FinishReason(enum.StrEnum):
    """How a backend said that its answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written. ``estimated`` where the backend reported none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could answer, with governance's ruling. ``rule`` is empty if admitted.

    ``unavailable`` says what is known against asking it now, such as failures of late; such a
    candidate is asked after all others. It is empty where nothing is. ``ranking`` are the figures
    that an objective went by, in words; empty where the written order stands.
    """

    model: Model
    is_fallback: bool = False
    rule: str = ""
    reason: str = ""
    estimated_cost: int | None = None
    unavailable: str = ""
    ranking: str = ""

    @property
    def admitted(self) -> bool:
        return not self.rule


def in_turn(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that may answer, in the order in which they are tried."""
    admitted = (candidate for candidate in candidates if candidate.admitted)
    return tuple(sorted(admitted, key=lambda candidate: bool(candidate.unavailable)))


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Seconds that each stage of a decision took."""

    embed: float = 0.0
    search: float = 0.0
    policy: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Enough to explain and replay the choice of a model.

    ``objective`` is what ordered the candidates, None where they stand as written.
    ``pinned`` if a session held the choice to an earlier one, which ``pin_moved_from`` was before
    its backend failed.
    """

    id: str
    decided_at: datetime
    profile: Profile
    utterances_revision: str
    encoder: str
    classification: Classification
    route: str
    candidates: tuple[Candidate, ...]
    reason: str
    elapsed: Elapsed
    objective: Objective | None = None
    pinned: bool = False
    pin_moved_from: str = ""

    @property
    def primary_model(self) -> str:
        """The model that the row names first, admitted or not."""
        route = self.profile.routes[self.route]
        return route.primaries(self.classification.tier)[0]

    @property
    def admitted(self) -> tuple[Candidate, ...]:
        """The candidates that may answer, in the order in which they are tried; never empty."""
        return in_turn(self.candidates)

    @property
    def chosen(self) -> Candidate:
        return self.admitted[0]

    @property
    def fallback_chain(self) -> tuple[str, ...]:
        return tuple(c.model.name for c in self.admitted[1:])

    @property
    def fallback_depth(self) -> int:
        """How many candidates stood before the chosen one."""
        return self.candidates.index(self.chosen)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of one tool call; ``index`` says of which."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.tool_calls)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one backend. Times are seconds; ``cost`` is in nano-USD."""

    model: Model
    started_at: datetime
    outcome: Outcome
    duration: float
    error_class: ErrorClass | None = None
    time_to_first_token: float | None = None
    usage: Usage = Usage()
    cost: int = 0

    @property
    def backend_failed(self) -> bool:
        """True where the backend was asked, and the failure was its own."""
        return self.error_class is not None and self.error_class.is_providers


@dataclass(frozen=True, slots=True)
class Restart:
    """The answer begins again with another candidate; discard what has come."""

    model: Model
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is whole."""

    reason: FinishReason
    model: Model
    usage: Usage
    cost: int
    attempts: tuple[Attempt, ...]
