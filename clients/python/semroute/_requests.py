"""What both clients share: requests from plain arguments, and how a channel is set up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

from semroute.v1 import router_pb2 as pb

DEFAULT_ADDRESS = "127.0.0.1:50051"
DECIDE_SECONDS = 10.0
COMPLETE_SECONDS = 300.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

QueryLike: TypeAlias = str | Sequence[pb.Message] | pb.Query
"""A user's text, a conversation (oldest message first), or a whole Query."""

# A call that costs nothing is tried again; one that may have been paid for, or an answer that has
# begun, never is.
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": "semroute.v1.RouterService", "method": "Decide"},
                {"service": "semroute.v1.RouterService", "method": "BatchDecide"},
                {"service": "semroute.v1.ProfileService"},
            ],
            "retryPolicy": _RETRY,
        }
    ]
}
CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.enable_http_proxy", 0),  # a query goes to the address that was given, to no other
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # of itself it grows to two minutes
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


def query_of(query: QueryLike, caller: pb.Caller | None, session_id: str) -> pb.Query:
    """``query`` as a Query; ``caller`` and ``session_id`` fill in what it leaves unset."""
    if isinstance(query, pb.Query):
        message = pb.Query()
        message.CopyFrom(query)
    elif isinstance(query, str):
        message = pb.Query(messages=[pb.Message(role=pb.ROLE_USER, text=query)])
    else:
        message = pb.Query(messages=query)
    if caller is not None:
        message.caller.CopyFrom(caller)
    if session_id:
        message.session_id = session_id
    return message


def decide_request(
    query: QueryLike,
    profile: str,
    caller: pb.Caller | None,
    preferences: pb.Preferences | None,
    session_id: str,
) -> pb.DecideRequest:
    return pb.DecideRequest(
        query=query_of(query, caller, session_id), profile=profile, preferences=preferences
    )


def complete_request(
    query: QueryLike,
    profile: str,
    caller: pb.Caller | None,
    preferences: pb.Preferences | None,
    session_id: str,
    sampling: pb.Sampling | None,
    tools: Sequence[pb.Tool],
    tool_choice: pb.ToolChoice | None,
    response_format: pb.ResponseFormat | None,
    allow_restart: bool,
) -> pb.CompleteRequest:
    return pb.CompleteRequest(
        query=query_of(query, caller, session_id),
        profile=profile,
        preferences=preferences,
        sampling=sampling,
        tools=tools,
        tool_choice=tool_choice,
        response_format=response_format,
        allow_restart=allow_restart,
    )


class Collected:
    """What a completion has brought so far; both clients' streams are one.

    ``decision`` is there from the first event on; ``finish`` only when the answer is whole.
    """

    def __init__(self) -> None:
        self.decision: pb.Decision | None = None
        self.attempts: list[pb.Attempt] = []
        self.finish: pb.Finish | None = None
        self.restarts = 0
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """The answer's text so far; what a restart discarded is not in it."""
        return "".join(self._text)

    def take(self, response: pb.CompleteResponse) -> None:
        """Note an event."""
        match response.WhichOneof("event"):
            case "delta":
                if response.delta.text:
                    self._text.append(response.delta.text)
            case "decision":
                self.decision = response.decision
            case "attempt":
                self.attempts.append(response.attempt)
            case "restart":
                self.restarts += 1
                self._text.clear()
            case "finish":
                self.finish = response.finish
