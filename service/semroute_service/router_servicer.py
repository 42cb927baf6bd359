"""RouterService on the wire: requests in, decisions and answers out."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import grpc

from semroute.v1 import router_pb2 as pb
from semroute.v1 import router_pb2_grpc
from semroute_service import wire
from semroute_service.errors import InvalidRequestError, SemrouteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from semroute_service.decision import Decision
    from semroute_service.router import Ask
    from semroute_service.server import Server

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Context = grpc.aio.ServicerContext


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    def __init__(self, server: Server) -> None:
        self._server = server

    async def Decide(
        self, request: pb.DecideRequest, context: Context[pb.DecideRequest, pb.DecideResponse]
    ) -> pb.DecideResponse:
        async with self._server.answering(context):
            ask = self._read(wire.read_decide, request)
            router = await self._server.ready()
            return pb.DecideResponse(decision=wire.write_decision(await router.decide(ask)))
        raise AssertionError

    async def BatchDecide(
        self,
        request: pb.BatchDecideRequest,
        context: Context[pb.BatchDecideRequest, pb.BatchDecideResponse],
    ) -> pb.BatchDecideResponse:
        async with self._server.answering(context):
            if len(request.requests) > wire.MAX_BATCH:
                what = f"holds {len(request.requests)}; at most {wire.MAX_BATCH} at a time"
                raise InvalidRequestError(("requests", what))
            asks = [self._read_item(item) for item in request.requests]
            router = await self._server.ready()
            good = [ask for ask in asks if not isinstance(ask, SemrouteError)]
            decided = iter(await router.decide_many(good))
            results = [a if isinstance(a, SemrouteError) else next(decided) for a in asks]
            return pb.BatchDecideResponse(results=[_result(result) for result in results])
        raise AssertionError

    async def Complete(
        self,
        request: pb.CompleteRequest,
        context: Context[pb.CompleteRequest, pb.CompleteResponse],
    ) -> AsyncIterator[pb.CompleteResponse]:
        async with self._server.answering(context):
            ask = self._read(wire.read_complete, request)
            ask = replace(ask, deadline=_deadline(context))
            router = await self._server.ready()
            async with contextlib.aclosing(router.complete(ask)) as events:
                async for event in events:
                    yield wire.write_event(event)

    async def Embed(
        self, request: pb.EmbedRequest, context: Context[pb.EmbedRequest, pb.EmbedResponse]
    ) -> pb.EmbedResponse:
        async with self._server.answering(context):
            ask = replace(wire.read_embed(request), deadline=_deadline(context))
            router = await self._server.ready()
            return wire.write_embeddings(await router.embed(ask))
        raise AssertionError

    def _read(self, read: Callable[[_Request], Ask], request: _Request) -> Ask:
        """What the router never sees, since it cannot be read, is counted here."""
        try:
            return read(request)
        except SemrouteError:
            self._server.records.refuse()
            raise

    def _read_item(self, request: pb.DecideRequest) -> Ask | SemrouteError:
        try:
            return self._read(wire.read_decide, request)
        except SemrouteError as error:
            return error


def _deadline(context: Context[_Request, _Response]) -> float | None:
    """When the caller gives up, of ``time.monotonic``; None where it never will."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _result(result: Decision | SemrouteError) -> pb.BatchDecideResult:
    if isinstance(result, SemrouteError):
        return pb.BatchDecideResult(error=wire.batch_error(result))
    return pb.BatchDecideResult(decision=wire.write_decision(result))
