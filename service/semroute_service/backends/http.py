"""HTTP to upstreams: with ``answers``, the one place that knows the HTTP client.

Redirects are not followed, no proxy is taken from the environment and no cookie is kept, so a key
goes to the host that the profile or the catalogue names and to no other. The client sets
TCP_NODELAY itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import math
import os
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import certifi
from pydantic_core import to_json
from yarl import URL

from semroute_service.backends.answers import (
    FOREIGN,
    MAX_ANSWER_BYTES,
    MAX_LIST_BYTES,
    Bytes,
    refused,
    translated,
    whole,
    woken,
)
from semroute_service.backends.base import BackendError, Clocks, TlsError
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from semroute_service.profile import Backend

_BUFFER_BYTES = 64 * 1024
"""Twice as much of a stream is held at most; then the upstream is read no further."""
_LINGER_SECONDS = 1.0
"""How long the last bytes of a whole answer may take, for its connection to be used again."""
_KEEP_ALIVE_SECONDS = 4.0
"""Servers such as uvicorn and Node close a connection that was idle for five seconds."""
_USUAL_CLOCKS = Clocks()


class HttpClient:
    """A pool of connections, opened when it is first used. Lives on one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._lingering: set[aiohttp.ClientResponse] = set()
        """Answers that are whole, and whose last bytes are on their way."""

    async def close(self) -> None:
        for response in list(self._lingering):
            self._end(response)
        for session in self._sessions.values():
            await session.close()

    @contextlib.asynccontextmanager
    async def post(
        self,
        backend: Backend,
        path: str,
        body: dict[str, Any],
        clocks: Clocks = _USUAL_CLOCKS,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST ``body`` and give the answer's bytes as they arrive.

        Raises ``BackendError`` for every failure, mid-stream ones included. Leaving it by an
        exception closes the connection at once; leaving it otherwise says that the answer is whole.
        """
        response = await self._send("POST", backend.url + path, backend, clocks, _json(body))
        try:
            media = response.headers.get("content-type", "").lower()
            if response.status != 200 or not media.startswith("text/event-stream"):
                raise await refused(response, media)
            with woken(response):
                yield Bytes(response.content, clocks.idle_bytes)
        except BaseException:
            response.close()
            raise
        # The client takes a connection back by itself when the last bytes are there.
        if not response.closed:
            self._lingering.add(response)
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._end, response)

    async def fetch(
        self, backend: Backend, path: str, body: dict[str, Any], clocks: Clocks = _USUAL_CLOCKS
    ) -> bytes:
        """POST ``body`` and give the whole answer, which is no stream. Raises ``BackendError``."""
        response = await self._send("POST", backend.url + path, backend, clocks, _json(body))
        with contextlib.closing(response):
            if response.status != 200:
                raise await refused(response)
            return await whole(response, MAX_ANSWER_BYTES, clocks.idle_bytes)

    async def get_models(self, backend: Backend, timeout: float) -> tuple[str, ...]:
        """The models that ``backend`` lists, within ``timeout`` seconds in all.

        Raises ``BackendError``, also where the answer is no such list.
        """
        body = await self._get(backend, backend.url + "/models", timeout)
        try:
            return tuple(str(model["id"]) for model in json.loads(body)["data"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "no list of models") from error

    async def get_health(self, backend: Backend, timeout: float) -> None:
        """Ask the provider's health endpoint, within ``timeout`` seconds in all.

        Raises ``BackendError`` where it does not say that the backend is well.
        """
        url = backend.url.removesuffix("/v1") + backend.provider.health
        await self._get(backend, url, timeout)

    async def get_metrics(self, backend: Backend, timeout: float) -> str:
        """The server's own figures as Prometheus reads them, within ``timeout`` seconds in all.

        Raises ``BackendError``.
        """
        url = backend.url.removesuffix("/v1") + backend.provider.metrics
        return (await self._get(backend, url, timeout)).decode(errors="replace")

    async def _get(self, backend: Backend, url: str, timeout: float) -> bytes:
        """The whole answer. A server that sends slowly, or without end, gets no more time."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._send("GET", url, backend, _USUAL_CLOCKS)
                with contextlib.closing(response):
                    if response.status != 200:
                        raise await refused(response)
                    return await whole(response, MAX_LIST_BYTES)
        except TimeoutError as error:
            what = f"no whole answer within {timeout:g} s"
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, what) from error

    async def _send(
        self, method: str, url: str, backend: Backend, clocks: Clocks, content: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """The answer, as soon as its headers have come."""
        # The client knows no clock for the headers. It begins when the connection stands.
        clock = asyncio.timeout(None)
        _on_connection.set((clock, clocks.headers))
        try:
            async with clock:
                return await self._session(method).request(
                    method,
                    _url(url),
                    data=content,
                    headers=_headers(backend),
                    timeout=_limits(clocks.connect),
                    allow_redirects=False,
                    ssl=_trust() if url.startswith("https:") else True,
                )
        except aiohttp.ConnectionTimeoutError:
            what = f"connect: no connection within {clocks.connect} s"
            raise BackendError(ErrorClass.PROVIDER_CONNECT, what) from None
        except TimeoutError:
            what = f"headers: none within {clocks.headers} s"
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, what) from None
        except FOREIGN as error:
            raise translated(error, answered=False) from error

    def _end(self, response: aiohttp.ClientResponse) -> None:
        self._lingering.discard(response)
        response.close()

    def _session(self, method: str) -> aiohttp.ClientSession:
        """Calls keep their connections. Checks do not: servers such as uvicorn close one after an
        error without saying so, and a call that came next would be lost on it."""
        if method not in self._sessions:
            keep: dict[str, Any] = {"keepalive_timeout": _KEEP_ALIVE_SECONDS}
            self._sessions[method] = aiohttp.ClientSession(
                # The router admits so many requests and no more; none of them waits here.
                connector=_Connector(
                    limit=0, **keep if method == "POST" else {"force_close": True}
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_BUFFER_BYTES,
            )
        return self._sessions[method]


_on_connection: contextvars.ContextVar[tuple[asyncio.Timeout, float | None]]
_on_connection = contextvars.ContextVar("on_connection")
"""The clock that begins when a request has its connection, and its seconds."""


class _Connector(aiohttp.TCPConnector):
    """Starts the clock of the headers; the client's own traces cost far more."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        clock, seconds = _on_connection.get()
        if seconds is not None:
            clock.reschedule(asyncio.get_running_loop().time() + seconds)
        return connection


def _json(body: dict[str, Any]) -> bytes:
    try:
        return to_json(body)
    except ValueError:  # half a character, which UTF-8 cannot hold
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


@functools.lru_cache
def _limits(connect: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=connect, ceil_threshold=math.inf)


@functools.lru_cache
def _url(url: str) -> URL:
    return URL(url, encoded=True)


def _headers(backend: Backend) -> dict[str, str]:
    provider = backend.provider
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        "user-agent": "semroute",
        **provider.headers,
    }
    secrets = {h: os.environ.get(variable, "") for h, variable in provider.secret_headers.items()}
    key = provider.key()
    if key:
        secrets[provider.key_header] = provider.key_prefix + key
    for header, secret in secrets.items():
        value = secret.strip()
        if not (value.isascii() and value.isprintable()):
            variable = provider.secret_headers.get(header) or " or ".join(provider.key_env)
            what = f"{variable} holds a character that no header can carry"
            raise BackendError(ErrorClass.PROVIDER_CREDENTIALS, what)
        if value:
            headers[header] = value
    return headers


@functools.cache
def _trust() -> ssl.SSLContext:
    """Whom to believe: what SSL_CERT_FILE and SSL_CERT_DIR name, or else the usual authorities."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(
            cafile=file or (None if folder else certifi.where()), capath=folder
        )
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise TlsError(f"SSL_CERT_FILE cannot be read ({why})") from None
