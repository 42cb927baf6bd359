"""What every backend is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from semroute_service.decision import Delta, ErrorClass, FinishReason, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from semroute_classifier.encoders import Vectors
    from semroute_service.profile import Model
    from semroute_service.query import Message, Options


class BackendError(Exception):
    """A call to a backend failed. ``detail`` is for the log; it never reaches a caller.

    ``retry_after`` is what the upstream asked to wait, in seconds.
    """

    def __init__(
        self, error_class: ErrorClass, detail: str, retry_after: float | None = None
    ) -> None:
        self.error_class = error_class
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(f"{error_class}: {detail}")


class TlsError(BackendError):
    """The backend is there, but nothing secret can be told to it: ``detail`` says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorClass.PROVIDER_CONNECT, detail)


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long a call may be silent, in seconds; None is without limit.

    ``connect`` until the connection stands, ``headers`` from then until the answer's headers, and
    ``idle_bytes`` between any two pieces of the answer, keep-alive comments included. Those of
    tokens (the first one, and between two) and the total are watched where deltas arrive, not in
    a backend.
    """

    connect: float | None = 5.0
    headers: float | None = None
    idle_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a backend is asked to answer."""

    model: Model
    messages: tuple[Message, ...]
    options: Options
    clocks: Clocks = Clocks()


@dataclass(frozen=True, slots=True)
class Whole:
    """No delta follows. What the answer used may; the backend waits for that, but not long."""


@dataclass(frozen=True, slots=True)
class End:
    """The backend said how its answer ended; ``usage`` is None where it reported none."""

    reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit rows, one for each text of a part; ``usage`` is None where the backend reported none."""

    vectors: Vectors
    usage: Usage | None = None


Event: TypeAlias = Delta | Whole | End


class ChatBackend(Protocol):
    """Streams an answer."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Deltas, perhaps ``Whole``, then exactly one ``End``; raises ``BackendError`` where there
        is no such end.

        Closing the generator closes the upstream request.
        """
