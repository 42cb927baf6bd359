"""Errors on the wire: none without a row, none that tells secrets, all readable by anyone."""

from __future__ import annotations

import asyncio
import enum
import json
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from semroute import RouterClient, RouterError
from semroute.v1 import error_reason_pb2, router_pb2_grpc
from semroute.v1 import router_pb2 as pb
from semroute_classifier.classifier import Basis
from semroute_classifier.documents import ConfigError, Problem
from semroute_classifier.encoders import EncoderError
from semroute_classifier.utterances import Tier
from semroute_service import errors
from semroute_service.decision import Candidate, ErrorClass, FinishReason, Outcome
from semroute_service.profile import Backend, Model, load_providers
from semroute_service.query import Capability, Objective, Role, Sensitivity, ToolChoice
from semroute_service.wire.errors import DETAILS_KEY, DOMAIN, TABLE, abort, batch_error, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.message import Message

SECRET = "sk-not-for-callers"


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


def candidate(name: str, rule: str = "", reason: str = "") -> Candidate:
    backend = Backend("home", load_providers()["echo"], "", True, "", Sensitivity.RESTRICTED)
    return Candidate(Model(name, name, backend, frozenset()), rule=rule, reason=reason)


DENIED = [candidate("coder", "local_only", "stays"), candidate("big", "max_cost", "too dear")]
ERRORS: dict[str, Exception] = {
    "fields": errors.InvalidRequestError(("query.messages", "is empty"), ("texts[0]", "is empty")),
    "unknown": errors.UnknownProfileError("west", ["north", "south"]),
    "denied": errors.NoCompliantModelError("default", DENIED),
    "budget": errors.BudgetExceededError("profile:north", "the month is spent", 86_400.5),
    "queue": errors.OverloadedError("1024 texts are waiting for the encoder"),
    "starting": errors.NotReadyError("the server is not running"),
    "upstreams": errors.UnavailableError("no backend could answer", [], 2.5),
    "broken": errors.StreamInterruptedError("the answer of coder broke off"),
    "endless": errors.UnavailableError("no backend could answer", [], math.inf),
    "long": errors.NoCompliantModelError(
        "default", [replace(c, reason="größer als erlaubt " * 200) for c in DENIED * 100]
    ),
    "many": errors.InvalidRequestError(*[(f"texts[{i}]", "is empty") for i in range(9_999)]),
    "bug": ZeroDivisionError(SECRET),
}
VIOLATIONS = {
    "fields": [("query.messages", "is empty", ""), ("texts[0]", "is empty", "")],
    "denied": [("coder", "stays", "local_only"), ("big", "too dear", "max_cost")],
    "budget": [("profile:north", "the month is spent", "")],
}
RETRY_AFTER = {"budget": 86_400.5, "queue": 1.0, "starting": 1.0, "upstreams": 2.5}
DETAILS = {
    "fields": [error_details_pb2.BadRequest],
    "denied": [error_details_pb2.PreconditionFailure],
    "budget": [error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo],
    "queue": [error_details_pb2.RetryInfo],
    "starting": [error_details_pb2.RetryInfo],
    "upstreams": [error_details_pb2.RetryInfo],
}


class Failing(router_pb2_grpc.RouterServiceServicer):
    """Fails with the error that the request names as its profile."""

    async def Decide(self, request: Any, context: Any) -> Any:
        await abort(context, ERRORS[request.profile])


def _failing() -> router_pb2_grpc.RouterServiceServicer:
    return Failing()  # type: ignore[abstract]  # the other calls are not needed


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    """A real server that only fails."""
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterServiceServicer_to_server(_failing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def rpc_error(address: str, name: str) -> Any:
    """The error of gRPC itself. Retries are off, because some of the errors invite them."""
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = router_pb2_grpc.RouterServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Decide(pb.DecideRequest(profile=name))
    return caught.value


def public_details(error: Any) -> list[Message]:
    """The details, read with nothing but google.rpc."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata[DETAILS_KEY])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = []
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        found.append(kind())
        assert packed.Unpack(found[-1])
    return found


def test_every_error_has_a_row() -> None:
    """Each error that can reach a caller has a status and a reason, and none can be forgotten."""
    tree = list(subclasses(errors.SemrouteError))
    leaves = {one for one in tree if not one.__subclasses__()}
    assert len(leaves) > 10
    assert set(TABLE) == leaves | {ConfigError, EncoderError}


def test_every_reason_is_in_the_contract() -> None:
    """The reasons of the table are names of the contract's ErrorReason."""
    known = {name.removeprefix("ERROR_REASON_") for name, _ in error_reason_pb2.ErrorReason.items()}
    assert {reason for _, reason in TABLE.values()} <= known


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (ErrorClass, pb.ErrorClass, "ERROR_CLASS_"),
        (FinishReason, pb.FinishReason, "FINISH_REASON_"),
        (Outcome, pb.AttemptOutcome, "ATTEMPT_OUTCOME_"),
        (Role, pb.Role, "ROLE_"),
        (Sensitivity, pb.Sensitivity, "SENSITIVITY_"),
        (Objective, pb.Objective, "OBJECTIVE_"),
        (Capability, pb.Capability, "CAPABILITY_"),
        (ToolChoice, pb.ToolChoiceMode, "TOOL_CHOICE_MODE_"),
        (Tier, pb.Tier, "TIER_"),
        (Basis, pb.Basis, "BASIS_"),
    ],
    ids=lambda value: value.strip("_").lower() if isinstance(value, str) else "",
)
def test_names_are_the_contracts(ours: type[enum.Enum], theirs: Any, prefix: str) -> None:
    """The program's enums have exactly the contract's values, but for the unset one."""
    expected = {f"{prefix}{member.name}" for member in ours}
    assert set(theirs.keys()) == expected | {f"{prefix}UNSPECIFIED"}
    if issubclass(ours, enum.IntEnum):
        assert all(theirs.Value(prefix + member.name) == member.value for member in ours)


def test_an_unknown_error_tells_nothing() -> None:
    """What was not foreseen is INTERNAL, and nothing of its inside leaves, in a batch neither."""
    error = ValueError(SECRET)
    wire = translate(error)
    assert (wire.code, wire.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert SECRET.encode() not in wire.status().SerializeToString()
    assert batch_error(error).reason == error_reason_pb2.ERROR_REASON_INTERNAL
    assert SECRET not in str(batch_error(error))


def test_a_wrong_file_is_told() -> None:
    """A wrong file is a failed precondition that says where and what."""
    wire = translate(ConfigError([Problem("north.yaml", 3, "routes", "is required")]))
    assert (wire.code, wire.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_CONFIG")
    assert wire.message == "north.yaml:3: routes: is required"


@pytest.mark.parametrize("name", ERRORS)
async def test_google_rpc_reads_every_error(address: str, name: str) -> None:
    """ErrorInfo comes first, and then what the error's kind promises, in the public types."""
    info, *others = public_details(await rpc_error(address, name))
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == DOMAIN
    assert info.reason == TABLE.get(type(ERRORS[name]), (None, "INTERNAL"))[1]
    if name in DETAILS:
        assert [type(other) for other in others] == DETAILS[name]


@pytest.mark.parametrize("name", ERRORS)
async def test_the_client_reads_every_error(address: str, name: str) -> None:
    """RouterError has the same code, reason, violations and patience, however long the error is."""
    error = RouterError.from_rpc(await rpc_error(address, name))
    code, reason = TABLE.get(type(ERRORS[name]), (grpc.StatusCode.INTERNAL, "INTERNAL"))
    assert (error.code, error.reason) == (code, reason)
    found = [(v.subject, v.description, v.rule) for v in error.violations]
    if name in {"long", "many"}:
        assert len(found) > 5
        assert error.message.endswith("...")
    else:
        assert found == VIOLATIONS.get(name, [])
        assert SECRET not in str(error)
    if name == "endless":
        assert error.retry_after is not None
        assert error.retry_after > 86_400
    else:
        assert error.retry_after == RETRY_AFTER.get(name)


WITHOUT_GOOGLE_RPC = """
import dataclasses, json, sys
sys.modules["google.rpc"] = None  # importing it now fails
from semroute import RouterError, SyncRouterClient
with SyncRouterClient(sys.argv[1]) as client:
    try:
        client.decide("hello", profile=sys.argv[2])
    except RouterError as error:
        violations = [dataclasses.astuple(v) for v in error.violations]
        print(json.dumps([error.code.name, error.reason, violations, error.retry_after]))
assert "semroute_service" not in sys.modules
"""


@pytest.mark.parametrize("name", ["fields", "denied", "budget"])
async def test_the_client_needs_no_google_rpc(address: str, name: str) -> None:
    """In a process without google.rpc the client reads the details all the same."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT_GOOGLE_RPC, address, name, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    code, reason = TABLE[type(ERRORS[name])]
    violations = [list(violation) for violation in VIOLATIONS[name]]
    assert json.loads(output) == [code.name, reason, violations, RETRY_AFTER.get(name)]


def test_the_client_survives_what_it_does_not_know() -> None:
    """Details that are not semroute's, and reasons of a newer server, still give a RouterError."""
    metadata = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff not protobuf"))
    rpc = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata, details="gone")
    error = RouterError.from_rpc(rpc)
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.UNAVAILABLE, "", "gone")
    newer: Any = 999
    unknown = RouterError.from_batch(pb.Error(code=5, reason=newer, message="no"))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "")


async def test_a_refusal_is_not_tried_again(address: str) -> None:
    """Through the client, with its retries, a final error is the caller's at the first answer."""
    async with RouterClient(address) as client:
        with pytest.raises(RouterError) as caught:
            await client.decide("hello", profile="denied")
    assert [violation.rule for violation in caught.value.violations] == ["local_only", "max_cost"]
