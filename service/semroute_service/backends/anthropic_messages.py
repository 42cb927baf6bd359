"""Anthropic's Messages API, and whatever else speaks it: POST {url}/messages, streamed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from semroute_service.backends.anthropic_request import request_body
from semroute_service.backends.anthropic_stream import StreamReader
from semroute_service.backends.base import BackendError, End
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from semroute_service.backends.base import ChatRequest, Event
    from semroute_service.backends.http import HttpClient

_AFTER_STOP_SECONDS = 2.0
"""How long to wait, after the stop reason, for the event that says that nothing follows it."""


class AnthropicMessagesBackend:
    """One endpoint. The key is read from the environment at every call and kept nowhere."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        backend, body = request.model.backend, request_body(request)
        reader = StreamReader(backend.provider.finish_reasons)
        async with self._http.post(backend, "/messages", body, request.clocks) as chunks:
            async for chunk in chunks:
                for delta in reader.feed(chunk):
                    yield delta
                if reader.finish:
                    break
            else:
                for delta in reader.close():
                    yield delta
            if reader.finish is None:
                what = "the stream ended without a stop reason"
                raise BackendError(ErrorClass.PROVIDER_INTERRUPTED, what)
            if not reader.is_over:
                await _drain(chunks, reader)
        yield End(reader.finish, reader.usage)


async def _drain(chunks: AsyncIterator[bytes], reader: StreamReader) -> None:
    """Read on for usage that may follow. The answer is whole already: nothing here can spoil it."""
    with contextlib.suppress(TimeoutError, BackendError):
        async with asyncio.timeout(_AFTER_STOP_SECONDS):
            async for chunk in chunks:
                reader.feed(chunk)
                if reader.is_over:
                    return
            reader.close()
