"""What comes back over HTTP: its bytes as they arrive, and its failures in our words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import weakref
from typing import TYPE_CHECKING

import aiohttp

from semroute_service.backends.base import BackendError, TlsError
from semroute_service.backends.refusals import refusal, refusal_inside
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ERROR_BYTES = 64 * 1024
MAX_LIST_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
FOREIGN = (aiohttp.ClientError, OSError, UnicodeError)
"""What the client raises, the clocks included; the last for a host that cannot have a name."""
_ERROR_BODY_SECONDS = 2.0
"""How long to wait for what an error says, after its status."""


class Bytes:
    """The bytes of an answer, all that have arrived at a time. The clock runs only while more is
    wanted and nothing is there: a slow reader is not the upstream's silence."""

    def __init__(self, content: aiohttp.StreamReader, idle: float | None) -> None:
        self._content = content
        self._idle = idle

    def __aiter__(self) -> Bytes:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = self._content.read_nowait() or await self._next()
        except FOREIGN as error:
            raise translated(error, answered=True) from error
        if not data:
            raise StopAsyncIteration
        return data

    async def _next(self) -> bytes:
        if self._idle is None:
            return await self._content.readany()
        try:
            async with asyncio.timeout(self._idle):
                return await self._content.readany()
        except TimeoutError:
            what = f"idle_bytes: nothing for {self._idle} s"
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, what) from None


_heard: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
"""Of connections, those whose end nobody needs to log: the reader is told, if there is one."""


def _hear(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()


@contextlib.contextmanager
def woken(response: aiohttp.ClientResponse) -> Iterator[None]:
    """The client leaves a reader waiting whose connection it closed because of what came on it."""
    content = response.content
    protocol = response.connection.protocol if response.connection else None
    closed = None if protocol is None else protocol.closed

    def wake(_: asyncio.Future[None]) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    if closed:
        if closed not in _heard:
            _heard.add(closed)
            closed.add_done_callback(_hear)
        closed.add_done_callback(wake)
    try:
        yield
    finally:
        if closed:
            closed.remove_done_callback(wake)


async def whole(response: aiohttp.ClientResponse, longest: int, idle: float | None = None) -> bytes:
    """A body that is no stream, to its end, which comes within ``longest`` bytes."""
    body = bytearray()
    with woken(response):
        async for chunk in Bytes(response.content, idle):
            body += chunk
            if len(body) > longest:
                raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "the answer has no end")
    return bytes(body)


async def refused(response: aiohttp.ClientResponse, media: str = "") -> BackendError:
    """What an answer means that is no stream, from its status and the beginning of its body."""
    body = (await _beginning(response)).decode(errors="replace")
    if response.status != 200:
        return refusal(response.status, response.headers, body)
    with contextlib.suppress(ValueError, RecursionError, TypeError, LookupError):
        return refusal_inside(json.loads(body)["error"])
    return BackendError(ErrorClass.PROVIDER_PROTOCOL, f"the answer is {media or 'untyped'}")


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """As much of a body as comes soon and is not too long; its status says most of it."""
    body = bytearray()
    with contextlib.suppress(BackendError, TimeoutError):
        async with asyncio.timeout(_ERROR_BODY_SECONDS):
            async for chunk in Bytes(response.content, None):
                body += chunk
                if len(body) > _MAX_ERROR_BYTES:
                    break
    return bytes(body[:_MAX_ERROR_BYTES])


def translated(error: Exception, *, answered: bool) -> Exception:
    """One of the client's errors in our words, and not in an upstream's; a clock's stays."""
    if isinstance(error, TimeoutError):
        return error
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientSSLError):
        return _tls(error.__cause__)
    if isinstance(error, aiohttp.ClientConnectorError):
        return BackendError(ErrorClass.PROVIDER_CONNECT, f"{name}: {error.strerror}")
    if isinstance(error, UnicodeError):
        return BackendError(ErrorClass.PROVIDER_CONNECT, "the host's name cannot be encoded")
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
        broken = ErrorClass.PROVIDER_INTERRUPTED if answered else ErrorClass.PROVIDER_CONNECT
        return BackendError(broken, name)
    return BackendError(ErrorClass.PROVIDER_PROTOCOL, name)


def _tls(cause: BaseException | None) -> TlsError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message
        return TlsError(f"its certificate is not trusted ({why}); see SSL_CERT_FILE")
    reason = getattr(cause, "reason", None) or "UNKNOWN"
    return TlsError(f"does not speak TLS as it should ({reason.lower().replace('_', ' ')})")
