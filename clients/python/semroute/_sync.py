"""The synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from semroute._errors import RouterError
from semroute._requests import (
    CHANNEL_OPTIONS,
    COMPLETE_SECONDS,
    DECIDE_SECONDS,
    DEFAULT_ADDRESS,
    Collected,
    QueryLike,
    complete_request,
    decide_request,
)
from semroute.v1 import profile_pb2, profile_pb2_grpc, router_pb2_grpc
from semroute.v1 import router_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType


class SyncCompletion(Collected):
    """A stream of deltas; a context manager, so that it cannot be left open.

    Iterating raises ``RouterError`` where the answer is not whole.
    """

    def __init__(self, call: Any) -> None:
        super().__init__()
        self._call = call

    def __enter__(self) -> SyncCompletion:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call.cancel()

    def __iter__(self) -> Iterator[pb.Delta]:
        for event in self.events():
            if event.HasField("delta"):
                yield event.delta

    def events(self) -> Iterator[pb.CompleteResponse]:
        """Every event as it comes: the decision, deltas, attempts, restarts, the finish."""
        try:
            for event in self._call:
                self.take(event)
                yield event
        except grpc.RpcError as error:
            raise RouterError.from_rpc(error) from None

    def read(self) -> str:
        """Read to the end and return the whole text."""
        for _ in self:
            pass
        return self.text


class SyncRouterClient:
    """One channel to a semroute server; safe to share between threads.

    Timeouts are in seconds and become the deadlines of the calls. ``credentials`` make the
    channel TLS. Every method raises ``RouterError``.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        if credentials:
            self._channel = grpc.secure_channel(address, credentials, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self._router: Any = router_pb2_grpc.RouterServiceStub(self._channel)
        self._profiles: Any = profile_pb2_grpc.ProfileServiceStub(self._channel)

    def __enter__(self) -> SyncRouterClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def decide(
        self,
        query: QueryLike,
        *,
        profile: str = "",
        caller: pb.Caller | None = None,
        preferences: pb.Preferences | None = None,
        session_id: str = "",
        timeout: float = DECIDE_SECONDS,
    ) -> pb.Decision:
        """The decision alone; no backend is called and nothing is spent."""
        request = decide_request(query, profile, caller, preferences, session_id)
        response = _call(self._router.Decide, request, timeout)
        decision: pb.Decision = response.decision
        return decision

    def batch_decide(
        self, requests: Sequence[pb.DecideRequest | str], *, timeout: float = COMPLETE_SECONDS
    ) -> list[pb.Decision | RouterError]:
        """One decision, or the error in its place, for each request, in order; at most 1,000."""
        asked = [
            decide_request(r, "", None, None, "") if isinstance(r, str) else r for r in requests
        ]
        batch = pb.BatchDecideRequest(requests=asked)
        response = _call(self._router.BatchDecide, batch, timeout)
        return [
            r.decision if r.HasField("decision") else RouterError.from_batch(r.error)
            for r in response.results
        ]

    def complete(
        self,
        query: QueryLike,
        *,
        profile: str = "",
        caller: pb.Caller | None = None,
        preferences: pb.Preferences | None = None,
        session_id: str = "",
        sampling: pb.Sampling | None = None,
        tools: Sequence[pb.Tool] = (),
        tool_choice: pb.ToolChoice | None = None,
        response_format: pb.ResponseFormat | None = None,
        allow_restart: bool = False,
        timeout: float = COMPLETE_SECONDS,
    ) -> SyncCompletion:
        """Decide, then stream the answer."""
        request = complete_request(
            query,
            profile,
            caller,
            preferences,
            session_id,
            sampling,
            tools,
            tool_choice,
            response_format,
            allow_restart,
        )
        return SyncCompletion(self._router.Complete(request, timeout=timeout))

    def embed(
        self,
        texts: Sequence[str],
        *,
        profile: str = "",
        caller: pb.Caller | None = None,
        model: str = "",
        timeout: float = DECIDE_SECONDS,
    ) -> list[list[float]]:
        """One vector of unit length for each text, by the profile's embedding model or the
        router's own encoder. Name the ``model`` to compare them with older ones."""
        request = pb.EmbedRequest(texts=texts, profile=profile, caller=caller, model=model)
        response = _call(self._router.Embed, request, timeout)
        return [list(embedding.values) for embedding in response.embeddings]

    def profiles(self, *, timeout: float = DECIDE_SECONDS) -> list[profile_pb2.ProfileSummary]:
        """Every profile that the server has loaded."""
        request = profile_pb2.ListProfilesRequest()
        response = _call(self._profiles.ListProfiles, request, timeout)
        return list(response.profiles)

    def activate_profile(
        self, name: str, *, timeout: float = COMPLETE_SECONDS
    ) -> profile_pb2.ProfileSummary:
        """Make ``name`` the profile of requests that name none."""
        request = profile_pb2.ActivateProfileRequest(name=name)
        response = _call(self._profiles.ActivateProfile, request, timeout)
        active: profile_pb2.ProfileSummary = response.active
        return active

    def end_session(
        self, session_id: str, *, tenant: str = "", timeout: float = DECIDE_SECONDS
    ) -> profile_pb2.EndSessionResponse:
        """Let go of a session; says how long it was and what it came to."""
        request = profile_pb2.EndSessionRequest(session_id=session_id, tenant=tenant)
        ended: profile_pb2.EndSessionResponse = _call(self._profiles.EndSession, request, timeout)
        return ended

    def status(self, *, timeout: float = DECIDE_SECONDS) -> profile_pb2.GetStatusResponse:
        """The server's profile, revisions, uptime and counts."""
        request = profile_pb2.GetStatusRequest()
        status: profile_pb2.GetStatusResponse = _call(self._profiles.GetStatus, request, timeout)
        return status

    def backends(
        self, profile: str = "", *, timeout: float = DECIDE_SECONDS
    ) -> profile_pb2.ListBackendsResponse:
        """What the server knows of a profile's backends; of the active one's without a name."""
        request = profile_pb2.ListBackendsRequest(profile=profile)
        found: profile_pb2.ListBackendsResponse = _call(
            self._profiles.ListBackends, request, timeout
        )
        return found


def _call(method: Any, request: Any, timeout: float) -> Any:
    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as error:
        raise RouterError.from_rpc(error) from None
