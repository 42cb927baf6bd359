"""Between the contract's messages and the program's own words. It only translates."""

from semroute_service.wire.backends import write_backends
from semroute_service.wire.errors import abort, batch_error, translate
from semroute_service.wire.requests import MAX_BATCH, read_complete, read_decide, read_embed
from semroute_service.wire.resources import write_detection
from semroute_service.wire.responses import (
    write_decision,
    write_embeddings,
    write_event,
    write_profile,
    write_session,
    write_status,
    write_summary,
)

__all__ = [
    "MAX_BATCH",
    "abort",
    "batch_error",
    "read_complete",
    "read_decide",
    "read_embed",
    "translate",
    "write_backends",
    "write_decision",
    "write_detection",
    "write_embeddings",
    "write_event",
    "write_profile",
    "write_session",
    "write_status",
    "write_summary",
]
