"""Backends: one small protocol, and the only folder of this room where variants live."""

from semroute_service.backends.base import BackendError, ChatBackend, ChatRequest, End, Event
from semroute_service.backends.pool import BackendPool

__all__ = ["BackendError", "BackendPool", "ChatBackend", "ChatRequest", "End", "Event"]
