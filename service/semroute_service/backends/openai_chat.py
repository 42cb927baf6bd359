"""Any OpenAI-compatible server: POST {url}/chat/completions, streamed.

vLLM, Ollama, SGLang, llama.cpp and most clouds speak it. What differs between them stands in the
catalogue, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from semroute_service.backends.base import BackendError, End
from semroute_service.backends.openai_request import request_body
from semroute_service.backends.openai_stream import StreamReader
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from semroute_service.backends.base import ChatRequest, Event
    from semroute_service.backends.http import HttpClient

_AFTER_FINISH_SECONDS = 2.0
"""How long to wait, after the finish reason, for the usage that may follow it."""


class OpenAIChatBackend:
    """One endpoint. The key is read from the environment at every call and kept nowhere."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        backend, body = request.model.backend, request_body(request)
        reader = StreamReader(backend.provider.finish_reasons)
        async with self._http.post(backend, "/chat/completions", body, request.clocks) as chunks:
            async for chunk in chunks:
                for delta in reader.feed(chunk):
                    yield delta
                if reader.finish or reader.failure or reader.is_over:
                    break
            else:
                for delta in reader.close():
                    yield delta
            if reader.finish is None and reader.failure:
                raise reader.failure
            if reader.finish is None:
                what = "the stream ended without a finish reason"
                raise BackendError(ErrorClass.PROVIDER_INTERRUPTED, what)
            if not reader.is_over:
                await _drain(chunks, reader)
        yield End(reader.finish, reader.usage)


async def _drain(chunks: AsyncIterator[bytes], reader: StreamReader) -> None:
    """Read on for the usage. The answer is whole already, so nothing here can spoil it."""
    with contextlib.suppress(TimeoutError, BackendError):
        async with asyncio.timeout(_AFTER_FINISH_SECONDS):
            async for chunk in chunks:
                reader.feed(chunk)
                if reader.is_over or reader.failure:
                    return
            reader.close()
