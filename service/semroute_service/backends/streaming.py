"""An answer streamed over HTTP: the one loop that all protocols share."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from semroute_service.backends.base import BackendError, End, Whole
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from semroute_service.backends.base import ChatRequest, Event
    from semroute_service.backends.http import HttpClient
    from semroute_service.decision import Delta, FinishReason, Usage

_AFTER_FINISH_SECONDS = 2.0
"""How long to wait, after the word on how the answer ended, for the usage that may follow it."""


class Reader(Protocol):
    """Reads a protocol's stream, and knows how the answer ended and what it used.

    ``failure`` is set where the stream said that it failed, or cannot be understood; what had come
    before is returned first, however the network had cut it, and nothing is read after it.
    """

    finish: FinishReason | None
    failure: BackendError | None

    @property
    def usage(self) -> Usage | None: ...

    @property
    def is_over(self) -> bool:
        """Nothing more can matter."""

    def feed(self, chunk: bytes) -> list[Delta]:
        """The deltas in ``chunk``; those that arrived together are as few as keep their order."""

    def close(self) -> list[Delta]:
        """The same for what stands unfinished when the stream ends."""


class HttpChatBackend:
    """One protocol. The key is read from the environment at every call and kept nowhere."""

    def __init__(
        self,
        http: HttpClient,
        path: str,
        body: Callable[[ChatRequest], dict[str, Any]],
        reader: Callable[[Mapping[str, str]], Reader],
    ) -> None:
        """``path`` follows the base URL; ``reader`` takes the provider's own words for how an
        answer ended."""
        self._http = http
        self._path = path
        self._body = body
        self._reader = reader

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        backend, body = request.model.backend, self._body(request)
        reader = self._reader(backend.provider.finish_reasons)
        async with self._http.post(backend, self._path, body, request.clocks) as chunks:
            async for chunk in chunks:
                for delta in reader.feed(chunk):
                    yield delta
                if reader.finish or reader.failure or reader.is_over:
                    break
            else:
                for delta in reader.close():
                    yield delta
            if reader.finish is None:
                what = "the stream ended without saying how the answer did"
                raise reader.failure or BackendError(ErrorClass.PROVIDER_INTERRUPTED, what)
            if not reader.is_over:
                yield Whole()
                await _drain(chunks, reader)
        yield End(reader.finish, reader.usage)


async def _drain(chunks: AsyncIterator[bytes], reader: Reader) -> None:
    """Read on for the usage. The answer is whole already, so nothing here can spoil it."""
    with contextlib.suppress(TimeoutError, BackendError):
        async with asyncio.timeout(_AFTER_FINISH_SECONDS):
            async for chunk in chunks:
                reader.feed(chunk)
                if reader.is_over or reader.failure:
                    return
            reader.close()
