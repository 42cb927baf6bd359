"""HTTP to upstreams: the one place that knows the HTTP client.

The httpx API over the aiohttp transport. Redirects are not followed and no proxy is taken from
the environment, so a key goes to the host that the profile or the catalogue names and to no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from semroute_service.backends.base import BackendError
from semroute_service.decision import ErrorClass

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from semroute_service.profile import Backend

CONNECT_SECONDS = 5.0
_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 4 * 1024 * 1024

_ERROR_CLASSES = {
    400: ErrorClass.CALLER_INVALID_REQUEST,
    401: ErrorClass.PROVIDER_CREDENTIALS,
    402: ErrorClass.PROVIDER_CREDENTIALS,
    403: ErrorClass.PROVIDER_CREDENTIALS,
    404: ErrorClass.PROVIDER_MODEL_NOT_FOUND,
    408: ErrorClass.PROVIDER_UNAVAILABLE,
    413: ErrorClass.CALLER_CONTEXT_LENGTH,
    422: ErrorClass.CALLER_INVALID_REQUEST,
    429: ErrorClass.PROVIDER_RATE_LIMIT,
    498: ErrorClass.PROVIDER_RATE_LIMIT,
}
_CONTEXT_LENGTH = ("context_length", "context length", "maximum context", "too many tokens")
_CONTENT_FILTER = ("content_filter", "content filter", "content_policy")


class HttpClient:
    """A pool of connections, opened when it is first used."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(
                limits=httpx.Limits(max_connections=1000, max_keepalive_connections=200)
            ),
            # The router watches tokens; these are the connection's own clocks.
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS, write=30.0, pool=5.0),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def post(
        self, backend: Backend, path: str, body: dict[str, Any]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST ``body`` and give the answer's bytes as they arrive.

        Raises ``BackendError`` for every failure, mid-stream ones included.
        """
        content = json.dumps(body, ensure_ascii=False).encode()
        with _translated():
            async with self._client.stream(
                "POST", backend.url + path, content=content, headers=_headers(backend)
            ) as response:
                if response.status_code != 200:
                    raise await _refusal(response)
                media = response.headers.get("content-type", "")
                if not media.lower().startswith("text/event-stream"):
                    raise BackendError(
                        ErrorClass.PROVIDER_PROTOCOL, f"the answer is {media or 'untyped'}"
                    )
                async with contextlib.aclosing(_received(response)) as chunks:
                    yield chunks

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

    async def _get(self, backend: Backend, url: str, timeout: float) -> bytes:
        """The whole answer. A server that sends slowly, or without end, gets no more time."""
        try:
            async with asyncio.timeout(timeout):
                with _translated():
                    async with self._client.stream(
                        "GET", url, headers=_headers(backend)
                    ) as response:
                        if response.status_code != 200:
                            raise await _refusal(response)
                        return await _whole(response)
        except TimeoutError as error:
            what = f"no whole answer within {timeout:g} s"
            raise BackendError(ErrorClass.PROVIDER_TIMEOUT, what) from error


def classify(status: int, body: str) -> ErrorClass:
    """The error class of an HTTP status and what the body says."""
    text = body.lower()
    if status in {400, 413, 422}:
        if any(word in text for word in _CONTEXT_LENGTH):
            return ErrorClass.CALLER_CONTEXT_LENGTH
        if any(word in text for word in _CONTENT_FILTER):
            return ErrorClass.POLICY_CONTENT_FILTER
    if status >= 500:
        return ErrorClass.PROVIDER_UNAVAILABLE
    return _ERROR_CLASSES.get(status, ErrorClass.PROVIDER_PROTOCOL)


def _headers(backend: Backend) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        "user-agent": "semroute",
    }
    key = backend.provider.key().strip()
    if not (key.isascii() and key.isprintable()):
        raise BackendError(ErrorClass.PROVIDER_CREDENTIALS, "no header can carry the key")
    if key:
        headers["authorization"] = f"Bearer {key}"
    return headers


async def _received(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    raw = cast("AsyncGenerator[bytes, None]", response.aiter_raw())  # it is one, and wants closing
    with _translated():
        async with contextlib.aclosing(raw) as chunks:
            async for chunk in chunks:
                yield chunk


async def _whole(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise BackendError(ErrorClass.PROVIDER_PROTOCOL, "the answer has no end")
    return bytes(body)


async def _refusal(response: httpx.Response) -> BackendError:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    error_class = classify(response.status_code, body.decode(errors="replace"))
    return BackendError(
        error_class, f"status {response.status_code}", _retry_after(response.headers)
    )


def _retry_after(headers: httpx.Headers) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, seconds)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """httpx's errors, and those that the transport below it lets through, in our words."""
    try:
        yield
    except (httpx.HTTPError, aiohttp.ClientError) as error:
        raise _translate(error) from error


def _translate(error: Exception) -> BackendError:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case httpx.TimeoutException() if not isinstance(error, httpx.ConnectTimeout):
            return BackendError(ErrorClass.PROVIDER_TIMEOUT, detail)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.UnsupportedProtocol():
            return BackendError(ErrorClass.PROVIDER_CONNECT, detail)
        case aiohttp.ClientError():
            return BackendError(ErrorClass.PROVIDER_PROTOCOL, detail)
        case _:
            # After the headers this is an interruption; before them it is a broken connection.
            # Only the router knows whether the answer had begun.
            return BackendError(ErrorClass.PROVIDER_INTERRUPTED, detail)
