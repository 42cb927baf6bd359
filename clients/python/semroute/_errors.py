"""What a failed call says, read from its status; needs nothing but grpcio and protobuf."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError

from semroute.v1 import error_reason_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from semroute.v1 import router_pb2 as pb

_DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that was wrong: a field, or a candidate that governance denied.

    ``rule`` is the rule of governance, empty for a field.
    """

    subject: str
    description: str
    rule: str = ""


class RouterError(Exception):
    """A call failed.

    ``reason`` is a name of the contract's ErrorReason without its prefix, such as
    ``NO_COMPLIANT_MODEL``; empty where the failure did not come from semroute. ``retry_after`` is
    in seconds.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        super().__init__(f"{code.name}{f' ({reason})' if reason else ''}: {message}")

    @classmethod
    def from_rpc(cls, error: Any) -> RouterError:
        """From the error that a gRPC call raised."""
        metadata = error.trailing_metadata() or ()
        packed = next((value for key, value in metadata if key == _DETAILS_KEY), None)
        details = _details(packed) if isinstance(packed, bytes) else {}
        info, retry = details.get("ErrorInfo"), details.get("RetryInfo")
        return cls(
            error.code(),
            error.details() or "",
            reason=info.reason if info else "",
            violations=tuple(_violations(details)),
            retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        )

    @classmethod
    def from_batch(cls, error: pb.Error) -> RouterError:
        """From an error that stands in the place of a batch's result."""
        known = error_reason_pb2.ErrorReason.values()  # a newer server may have more
        name = error_reason_pb2.ErrorReason.Name(error.reason) if error.reason in known else ""
        reason = name.removeprefix(_PREFIX)
        return cls(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message, reason)


def _violations(details: dict[str, Any]) -> list[Violation]:
    found = []
    if bad := details.get("BadRequest"):
        found += [Violation(v.field, v.description) for v in bad.field_violations]
    if denied := details.get("PreconditionFailure"):
        found += [Violation(v.subject, v.description, v.type) for v in denied.violations]
    if quota := details.get("QuotaFailure"):
        found += [Violation(v.subject, v.description) for v in quota.violations]
    return found


def _details(packed: bytes) -> dict[str, Any]:
    """The details of a serialised google.rpc.Status by the last part of their names."""
    types = _rpc_types()
    status: Any = types["Status"]()
    found = {}
    try:
        status.ParseFromString(packed)
        for detail in status.details:
            name = detail.type_url.rpartition(".")[2]
            if name in types:
                found[name] = types[name].FromString(detail.value)
    except DecodeError:  # not semroute's own, such as a proxy's
        return {}
    return found


_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    # message: (field, number, type); a type that ends in * is repeated
    "Status": [("code", 1, "int32"), ("message", 2, "string"), ("details", 3, "Any*")],
    "ErrorInfo": [("reason", 1, "string"), ("domain", 2, "string")],
    "RetryInfo": [("retry_delay", 1, "Duration")],
    "FieldViolation": [("field", 1, "string"), ("description", 2, "string")],
    "BadRequest": [("field_violations", 1, "FieldViolation*")],
    "PreconditionViolation": [
        ("type", 1, "string"),
        ("subject", 2, "string"),
        ("description", 3, "string"),
    ],
    "PreconditionFailure": [("violations", 1, "PreconditionViolation*")],
    "QuotaViolation": [("subject", 1, "string"), ("description", 2, "string")],
    "QuotaFailure": [("violations", 1, "QuotaViolation*")],
}


@functools.cache
def _rpc_types() -> dict[str, type[Message]]:
    """The wire forms of google.rpc that semroute sends, in a pool of their own.

    They are declared here because the package that ships them is no dependency of a thin client,
    and in a pool of their own because an application may have loaded that package as well.
    """
    field = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(duration_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="semroute/rpc_wire.proto",
        package="semroute.rpc_wire",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    scalars = {"int32": field.TYPE_INT32, "string": field.TYPE_STRING}
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            added = message.field.add(name=field_name, number=number)
            added.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            if kind in scalars:
                added.type = scalars[kind]
            else:
                package = "google.protobuf" if kind in {"Any", "Duration"} else file.package
                added.type, added.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _FIELDS
    }
