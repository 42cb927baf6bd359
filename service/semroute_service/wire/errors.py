"""Errors out: one table from exception types to status and reason, after google.rpc.

An exception that is in no row of the table is INTERNAL and tells nothing of its inside.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from semroute.v1 import router_pb2 as pb
from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import EncoderError
from semroute_service import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

DOMAIN = "semroute"
DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
MAX_MESSAGE_BYTES = 1024
MAX_DETAILS_BYTES = 2560
_MAX_DESCRIPTION_BYTES = 256
"""A status travels in trailers, of which gRPC lets through 8 KiB: one that is longer would be
replaced by another error on its way."""
_LONGEST_RETRY_SECONDS = 366 * 86_400.0
_log = logging.getLogger(__name__)

_Code = grpc.StatusCode
TABLE: dict[type[Exception], tuple[grpc.StatusCode, str]] = {
    errors.InvalidRequestError: (_Code.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.UnknownProfileError: (_Code.NOT_FOUND, "UNKNOWN_PROFILE"),
    errors.UnknownModelError: (_Code.NOT_FOUND, "UNKNOWN_MODEL"),
    errors.UnknownSessionError: (_Code.NOT_FOUND, "UNKNOWN_SESSION"),
    errors.NoCompliantModelError: (_Code.FAILED_PRECONDITION, "NO_COMPLIANT_MODEL"),
    errors.BudgetExceededError: (_Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED"),
    errors.OverloadedError: (_Code.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.NotReadyError: (_Code.UNAVAILABLE, "NOT_READY"),
    errors.DeadlineError: (_Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    errors.UpstreamRequestError: (_Code.INVALID_ARGUMENT, "UPSTREAM_INVALID_REQUEST"),
    errors.ContextLengthError: (_Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
    errors.ContentFilteredError: (_Code.FAILED_PRECONDITION, "CONTENT_FILTERED"),
    errors.CredentialsError: (_Code.UNAVAILABLE, "UPSTREAM_CREDENTIALS"),
    errors.UnavailableError: (_Code.UNAVAILABLE, "BACKENDS_UNAVAILABLE"),
    errors.StreamInterruptedError: (_Code.UNAVAILABLE, "STREAM_INTERRUPTED"),
    ConfigError: (_Code.FAILED_PRECONDITION, "INVALID_CONFIG"),
    EncoderError: (_Code.FAILED_PRECONDITION, "INVALID_CONFIG"),
}


@dataclass(frozen=True, slots=True)
class WireError:
    """What a caller is told."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: tuple[Message, ...]

    def status(self) -> status_pb2.Status:
        """As google.rpc.Status, ErrorInfo first."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)
        packed = []
        for detail in (info, *self.details):
            packed.append(Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)


def translate(error: Exception) -> WireError:
    """What ``error`` is on the wire."""
    row = TABLE.get(type(error))
    if row is None:
        _log.error("this is a bug", exc_info=error)
        return WireError(_Code.INTERNAL, "INTERNAL", "something failed inside semroute", ())
    code, reason = row
    message = _shortened(str(error), MAX_MESSAGE_BYTES)
    return WireError(code, reason, message, tuple(_details(error)))


async def abort(
    context: grpc.aio.ServicerContext[_Request, _Response], error: Exception
) -> NoReturn:
    """End the call with what ``error`` is on the wire."""
    wire = translate(error)
    metadata = ((DETAILS_KEY, wire.status().SerializeToString()),)
    await context.abort(wire.code, wire.message, metadata)
    raise AssertionError("this is a bug: abort returned")


def batch_error(error: Exception) -> pb.Error:
    """What ``error`` is inside a batch."""
    wire = translate(error)
    return pb.Error(code=wire.code.value[0], reason=_PREFIX + wire.reason, message=wire.message)


def _details(error: Exception) -> list[Message]:
    match error:
        case errors.InvalidRequestError():
            return [_bad_request(error)]
        case errors.NoCompliantModelError():
            return [_violations(error)]
        case errors.BudgetExceededError():
            violation = error_details_pb2.QuotaFailure.Violation(
                subject=error.subject,
                description=_shortened(str(error), _MAX_DESCRIPTION_BYTES),
            )
            quota = error_details_pb2.QuotaFailure(violations=[violation])
            return [quota, _retry_info(error.retry_after)]
        case errors.OverloadedError() | errors.NotReadyError():
            return [_retry_info(1.0)]
        case errors.UnavailableError() if error.retry_after is not None:
            return [_retry_info(error.retry_after)]
    return []


def _bad_request(error: errors.InvalidRequestError) -> Message:
    details: Message = error_details_pb2.BadRequest(
        field_violations=_fitting(
            error_details_pb2.BadRequest.FieldViolation(
                field=field, description=_shortened(what, _MAX_DESCRIPTION_BYTES)
            )
            for field, what in error.violations
        )
    )
    return details


def _violations(error: errors.NoCompliantModelError) -> Message:
    details: Message = error_details_pb2.PreconditionFailure(
        violations=_fitting(
            error_details_pb2.PreconditionFailure.Violation(
                type=candidate.rule,
                subject=candidate.model.name,
                description=_shortened(candidate.reason, _MAX_DESCRIPTION_BYTES),
            )
            for candidate in error.candidates
        )
    )
    return details


def _fitting(violations: Iterable[Message]) -> Iterator[Message]:
    """The first of ``violations``, as many as a status can carry."""
    room = MAX_DETAILS_BYTES
    for violation in violations:
        room -= violation.ByteSize()
        if room < 0:
            return
        yield violation


def _shortened(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def _retry_info(seconds: float) -> Message:
    delay = Duration()
    delay.FromMilliseconds(int(min(seconds, _LONGEST_RETRY_SECONDS) * 1000))
    info: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return info
