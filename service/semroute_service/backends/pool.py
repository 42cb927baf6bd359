"""All backends: which one answers for a model, and how each of them is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from semroute_service.backends import checking
from semroute_service.backends.anthropic_messages import AnthropicMessagesBackend
from semroute_service.backends.availability import Availability
from semroute_service.backends.base import BackendError
from semroute_service.backends.checking import address
from semroute_service.backends.echo import EchoBackend
from semroute_service.backends.http import HttpClient
from semroute_service.backends.litellm import LiteLLMBackend
from semroute_service.backends.openai_chat import OpenAIChatBackend
from semroute_service.backends.openai_embeddings import OpenAIEmbeddings
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from semroute_service.backends.base import ChatBackend, ChatRequest, Clocks, Embedded, Event
    from semroute_service.backends.checking import Answer
    from semroute_service.profile import Backend, Model, Profile

CHECK_SECONDS = 2.0
"""What one backend gets to say how it is."""
_log = logging.getLogger(__name__)


class BackendPool:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self.availability = Availability()
        self._http = HttpClient()
        self._embeddings = OpenAIEmbeddings(self._http)
        self._litellm = LiteLLMBackend()
        self._chat: dict[str, ChatBackend] = {
            "echo": EchoBackend(),
            "openai_chat": OpenAIChatBackend(self._http),
            "anthropic_messages": AnthropicMessagesBackend(self._http),
            "litellm": self._litellm,
        }

    def is_absent(self, model: Model) -> bool:
        """True where the model's backend is optional and did not answer when last asked."""
        return model.backend.optional and not self.availability.listed(model.backend)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Stream from the backend of ``request.model``; see ``ChatBackend.stream``."""
        protocol = request.model.backend.provider.protocol
        if request.model.id or protocol == "echo":
            return self._chat[protocol].stream(request)
        return self._stream_listed(request)

    async def embed(
        self, model: Model, texts: Sequence[str], clocks: Clocks
    ) -> AsyncGenerator[Embedded, None]:
        """The vectors of ``texts`` by ``model``, part by part; raises ``BackendError``."""
        if model.backend.provider.protocol != "openai_chat":
            what = f"{model.backend.provider.name} has no vectors"
            raise BackendError(ErrorClass.PROVIDER_MODEL_NOT_FOUND, what)
        named = model if model.id else await self._with_id(model)
        async with contextlib.aclosing(self._embeddings.embed(named, texts, clocks)) as parts:
            async for part in parts:
                yield part

    async def warm(self, profile: Profile) -> None:
        """Check the backends of ``profile``, and load what they need, so that no caller waits for
        it. Nothing is raised."""
        await asyncio.gather(self.check([profile]), self._load(profile))

    async def check(self, profiles: Iterable[Profile]) -> None:
        """Ask the backends of ``profiles`` how they are, all at once, each address once: those in
        the building, and optional ones. Nothing is raised."""
        declared = [(b, p) for p in profiles for b in p.backends.values()]
        distinct = {address(b): b for b, p in declared if _is_checked(b, p)}
        await asyncio.gather(*(self.ask(backend, CHECK_SECONDS) for backend in distinct.values()))

    async def ask(self, backend: Backend, seconds: float) -> Answer:
        """Ask one backend how it is, within ``seconds``, and take note of its answer, unless it is
        a cloud: that is known by its answers to calls. Nothing is raised."""
        start = time.monotonic()
        answer = await checking.ask(self._http, backend, seconds)
        left = seconds - (time.monotonic() - start)
        if answer.well and left > 0:
            waits = await checking.waiting(self._http, backend, left)
            answer = replace(answer, waiting=waits)
        if backend.local or backend.optional:
            self._note(backend, answer)
        return answer

    async def close(self) -> None:
        await self._http.close()

    async def _load(self, profile: Profile) -> None:
        if any(b.provider.protocol == "litellm" for b in profile.backends.values()):
            with contextlib.suppress(BackendError):  # governance says what is missing
                await self._litellm.prepare()

    def _note(self, backend: Backend, answer: Answer) -> None:
        before = self.availability.check(backend)
        self.availability.checked(backend, answer)
        if before and before.answer.well is answer.well:
            return
        if answer.well and answer.problem:
            _log.warning(
                "backend %s answers, but not with a list of models at %s/models: is its url right?",
                backend.name,
                backend.url,
            )
        elif answer.well:
            _log.info("backend %s answers, and lists %d models", backend.name, len(answer.models))
        else:
            # One that may be absent, and never was there, is nothing to be warned of.
            level = logging.INFO if backend.optional and before is None else logging.WARNING
            _log.log(level, "backend %s is not well: it %s", backend.name, answer.problem)

    async def _stream_listed(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """The same from the model that the backend lists."""
        request = replace(request, model=await self._with_id(request.model))
        async with contextlib.aclosing(self.stream(request)) as events:
            async for event in events:
                yield event

    async def _with_id(self, model: Model) -> Model:
        backend = model.backend
        served = self.availability.listed(backend) if backend.optional else ()
        served = served or await self._http.get_models(backend, CHECK_SECONDS)
        if not served:
            raise BackendError(ErrorClass.PROVIDER_MODEL_NOT_FOUND, "the backend lists no model")
        return replace(model, id=served[0])


def _is_checked(backend: Backend, profile: Profile) -> bool:
    """A cloud is known by its answers alone, unless the profile calls it optional."""
    return (backend.local and checking.may_be_asked(backend)) or backend in profile.probed
