"""Backends: one small protocol, and the only folder of this room where variants live."""

from semroute_service.backends.availability import Availability
from semroute_service.backends.base import (
    BackendError,
    ChatBackend,
    ChatRequest,
    Clocks,
    Embedded,
    End,
    Event,
    Whole,
)
from semroute_service.backends.pool import BackendPool

__all__ = [
    "Availability",
    "BackendError",
    "BackendPool",
    "ChatBackend",
    "ChatRequest",
    "Clocks",
    "Embedded",
    "End",
    "Event",
    "Whole",
]
