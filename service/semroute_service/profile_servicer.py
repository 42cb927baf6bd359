"""ProfileService on the wire: profiles shown and switched."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc

from semroute.v1 import profile_pb2, profile_pb2_grpc
from semroute_service import wire
from semroute_service.detection import detect, fits, recommend
from semroute_service.errors import InvalidRequestError

if TYPE_CHECKING:
    from semroute_service.backends import BackendPool
    from semroute_service.detection import Resources
    from semroute_service.profile import Profile
    from semroute_service.server import Server

Context = grpc.aio.ServicerContext
_log = logging.getLogger(__name__)


class ProfileServicer(profile_pb2_grpc.ProfileServiceServicer):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._detection: asyncio.Task[Resources] | None = None

    async def ListProfiles(
        self,
        request: profile_pb2.ListProfilesRequest,
        context: Context[profile_pb2.ListProfilesRequest, profile_pb2.ListProfilesResponse],
    ) -> profile_pb2.ListProfilesResponse:
        async with self._server.answering(context):
            store = (await self._server.ready()).profiles
            summaries = [wire.write_summary(profile, store.active) for profile in store.all()]
            return profile_pb2.ListProfilesResponse(profiles=summaries)
        raise AssertionError

    async def GetProfile(
        self,
        request: profile_pb2.GetProfileRequest,
        context: Context[profile_pb2.GetProfileRequest, profile_pb2.GetProfileResponse],
    ) -> profile_pb2.GetProfileResponse:
        async with self._server.answering(context):
            store = (await self._server.ready()).profiles
            profile = wire.write_profile(store.get(request.name), store.active)
            return profile_pb2.GetProfileResponse(profile=profile)
        raise AssertionError

    async def ActivateProfile(
        self,
        request: profile_pb2.ActivateProfileRequest,
        context: Context[profile_pb2.ActivateProfileRequest, profile_pb2.ActivateProfileResponse],
    ) -> profile_pb2.ActivateProfileResponse:
        async with self._server.answering(context):
            if not request.name:
                raise InvalidRequestError(("name", "is empty; name the profile to activate"))
            router = await self._server.ready()
            previous = await router.activate(request.name)
            active = router.profiles.active
            _log.info("profile %s is active; it was %s", active.name, previous.name)
            return profile_pb2.ActivateProfileResponse(
                active=wire.write_summary(active, active), previous=previous.name
            )
        raise AssertionError

    async def DetectResources(
        self,
        request: profile_pb2.DetectResourcesRequest,
        context: Context[profile_pb2.DetectResourcesRequest, profile_pb2.DetectResourcesResponse],
    ) -> profile_pb2.DetectResourcesResponse:
        async with self._server.answering(context):
            router = await self._server.ready()
            profiles = router.profiles.all()
            resources = await asyncio.shield(self._detection_of(profiles, router.backends))
            return wire.write_detection(
                resources, fits(profiles, resources), recommend(profiles, resources)
            )
        raise AssertionError

    async def EndSession(
        self,
        request: profile_pb2.EndSessionRequest,
        context: Context[profile_pb2.EndSessionRequest, profile_pb2.EndSessionResponse],
    ) -> profile_pb2.EndSessionResponse:
        async with self._server.answering(context):
            if not request.session_id:
                raise InvalidRequestError(("session_id", "is empty; name the session to end"))
            session, seconds = self._server.sessions.end(request.tenant, request.session_id)
            return wire.write_session(session, seconds)
        raise AssertionError

    async def GetStatus(
        self,
        request: profile_pb2.GetStatusRequest,
        context: Context[profile_pb2.GetStatusRequest, profile_pb2.GetStatusResponse],
    ) -> profile_pb2.GetStatusResponse:
        async with self._server.answering(context):
            return wire.write_status(self._server.status())
        raise AssertionError

    async def ListBackends(
        self,
        request: profile_pb2.ListBackendsRequest,
        context: Context[profile_pb2.ListBackendsRequest, profile_pb2.ListBackendsResponse],
    ) -> profile_pb2.ListBackendsResponse:
        async with self._server.answering(context):
            router = await self._server.ready()
            profile = router.profiles.get(request.profile)
            return wire.write_backends(profile, router.backends.availability)
        raise AssertionError

    def _detection_of(
        self, profiles: list[Profile], backends: BackendPool
    ) -> asyncio.Task[Resources]:
        """The detection that is under way, or a new one: callers at the same moment share it."""
        if self._detection is None or self._detection.done():
            home = self._server.settings.home
            self._detection = asyncio.create_task(detect(profiles, home, asking=backends.ask))
        return self._detection
