"""All backends: which one answers for a model, and which of the optional ones are there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from semroute_service.backends.base import BackendError
from semroute_service.backends.echo import EchoBackend
from semroute_service.backends.http import HttpClient
from semroute_service.backends.openai_chat import OpenAIChatBackend
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from semroute_service.backends.base import ChatBackend, ChatRequest, Event
    from semroute_service.profile import Backend, Model

PROBE_TIMEOUT = 1.0
_log = logging.getLogger(__name__)


class BackendPool:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._http = HttpClient()
        self._chat: dict[str, ChatBackend] = {
            "echo": EchoBackend(),
            "openai_chat": OpenAIChatBackend(self._http),
        }
        self._served: dict[str, tuple[str, ...]] = {}
        """What each address that was asked lists; an absent one is not in it."""

    def is_absent(self, model: Model) -> bool:
        """True where the model's backend is optional and did not answer when last asked."""
        backend = model.backend
        return backend.optional and backend.url not in self._served

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Stream from the backend of ``request.model``; see ``ChatBackend.stream``."""
        backend = request.model.backend
        if not request.model.id and backend.provider.protocol != "echo":
            request = replace(request, model=await self._with_id(request.model))
        stream = self._chat[backend.provider.protocol].stream(request)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    async def probe(self, backends: Iterable[Backend]) -> None:
        """Ask every optional backend, all at once, which models it serves."""
        optional = {b.url: b for b in backends if b.optional}
        await asyncio.gather(*(self._probe(backend) for backend in optional.values()))

    async def close(self) -> None:
        await self._http.close()

    async def _probe(self, backend: Backend) -> None:
        try:
            served = await self._http.get_models(backend, PROBE_TIMEOUT)
        except BackendError as error:
            if self._served.pop(backend.url, None) is not None:
                _log.warning("backend %s is gone: %s", backend.name, error.detail)
            return
        if backend.url not in self._served:
            _log.info("backend %s answers: %s", backend.name, ", ".join(served) or "no model")
        if served:
            self._served[backend.url] = served
        else:
            self._served.pop(backend.url, None)

    async def _with_id(self, model: Model) -> Model:
        backend = model.backend
        served = self._served.get(backend.url)
        served = served or await self._http.get_models(backend, PROBE_TIMEOUT)
        if not served:
            raise BackendError(ErrorClass.PROVIDER_MODEL_NOT_FOUND, "the backend lists no model")
        return replace(model, id=served[0])
