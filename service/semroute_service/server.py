"""The gRPC server: listens at once, is healthy when it is warm, drains when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from semroute.v1 import profile_pb2, profile_pb2_grpc, router_pb2_grpc
from semroute.v1 import router_pb2 as pb
from semroute_classifier.utterances import load_utterances
from semroute_service import wire
from semroute_service.backends import BackendPool
from semroute_service.classifying import ClassifierPool
from semroute_service.errors import NotReadyError
from semroute_service.ledger import Ledger
from semroute_service.profile import ProfileStore, load_profiles
from semroute_service.profile_servicer import ProfileServicer
from semroute_service.records import Records, Status
from semroute_service.router import Router
from semroute_service.router_servicer import RouterServicer
from semroute_service.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from semroute_service.settings import Settings

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Context = grpc.aio.ServicerContext

SERVICES = (
    pb.DESCRIPTOR.services_by_name["RouterService"].full_name,
    profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].full_name,
)
_CHANNEL_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a lottery
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 4),
)
_LAST_WORDS_SECONDS = 0.5
"""For what calls that have just ended still have to send."""
_log = logging.getLogger(__name__)


class Server:
    """One server on one event loop.

    Files are read when it is made, so a wrong one is told before anything listens; raises
    ``ConfigError`` and ``UnknownProfileError``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        utterances = load_utterances(settings.utterances)
        profiles = load_profiles(settings.profiles, utterances.tasks)
        self._profiles = ProfileStore(profiles, settings.profile)
        self.warnings = (*utterances.warnings, *self._profiles.active.warnings)
        self._utterances = utterances
        self.sessions = Sessions(settings.session_idle_seconds)
        self.records = Records(debug=settings.debug_routing)
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._health = health.aio.HealthServicer()
        self._ready: asyncio.Future[Router] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._router: Router | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> int:
        """Listen, begin to warm up, and return the port.

        Raises ``OSError`` where the port is taken or the ledger cannot be opened. ``stop`` ends
        the server after either.
        """
        settings = self.settings
        limit = settings.max_message_bytes
        options = (
            *_CHANNEL_OPTIONS,
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
        )
        self._grpc = grpc.aio.server(options=options)
        self._router = Router(
            self._profiles,
            ClassifierPool(self._utterances, settings.home, settings.encoder),
            BackendPool(),
            _open_ledger(settings.home),
            self.sessions,
            self.records,
        )
        self._ready = asyncio.get_running_loop().create_future()
        router_pb2_grpc.add_RouterServiceServicer_to_server(RouterServicer(self), self._grpc)
        profile_pb2_grpc.add_ProfileServiceServicer_to_server(ProfileServicer(self), self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        try:
            port = self._grpc.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {settings.listen}; is the port taken?") from error
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._grpc.start()
        self._tasks.append(asyncio.create_task(self._warm_up(self._router, self._ready)))
        return port

    async def ready(self) -> Router:
        """The router, once it is warm; raises what kept it from becoming so."""
        if self._ready is None or self._stopping:
            raise NotReadyError("the server is not running")
        if self._ready.done():
            return self._ready.result()
        return await asyncio.shield(self._ready)

    def status(self) -> Status:
        """What the server does, also before it is warm."""
        return Status(
            active=self._profiles.active,
            utterances_revision=self._utterances.revision,
            started_at=self._started_at,
            uptime=time.monotonic() - self._started,
            sessions=len(self.sessions),
            requests=self.records.requests,
            errors=self.records.errors,
            fallbacks=self.records.fallbacks,
            version=version("semroute"),
        )

    async def stop(self) -> None:
        """Report NOT_SERVING first, then let calls finish for ``drain_seconds``, then end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await self._stopping

    @contextlib.asynccontextmanager
    async def answering(self, context: Context[_Request, _Response]) -> AsyncIterator[None]:
        """One call: whatever goes wrong inside ends it with the design's error."""
        self._calls += 1
        self._idle.clear()
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await wire.abort(context, error)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        draining = asyncio.create_task(self._grpc.stop(self.settings.drain_seconds))
        idle = asyncio.create_task(self._idle.wait())
        await asyncio.wait({draining, idle}, return_when=asyncio.FIRST_COMPLETED)
        # Who watches the health never leaves, and is no reason to wait.
        await self._grpc.stop(_LAST_WORDS_SECONDS if idle.done() else None)
        await draining
        # Calls that were cut off book what they have spent before the ledger closes.
        await asyncio.wait({idle}, timeout=_LAST_WORDS_SECONDS)
        idle.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ready and not self._ready.done():
            self._ready.cancel()
        if self._router:
            await self._router.classifiers.close()
            await self._router.backends.close()
            await asyncio.to_thread(self._router.ledger.close)

    async def _warm_up(self, router: Router, ready: asyncio.Future[Router]) -> None:
        profile = self._profiles.active
        try:
            await asyncio.gather(
                router.classifiers.warm(profile.encoder),
                router.backends.warm(profile),
            )
        except Exception as error:  # whoever waits must hear of it
            _log.error("cannot serve: %s", error)
            ready.set_exception(error)
            ready.exception()  # heard, even where nobody waits yet
            return
        ready.set_result(router)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        while True:
            await asyncio.sleep(self.settings.probe_seconds)
            await router.backends.check([self._profiles.active, *self.sessions.profiles()])

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)


def _open_ledger(home: Path | None) -> Ledger:
    path = home / "ledger.sqlite3" if home else None
    try:
        return Ledger(path)
    except sqlite3.Error as error:
        raise OSError(f"the ledger {path} cannot be opened: {error}") from error
