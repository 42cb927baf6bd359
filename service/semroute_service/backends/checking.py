"""Asking a backend how it is: whether it answers, what it lists, how many requests wait there."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from semroute_service.backends.base import BackendError, TlsError
from semroute_service.decision import ErrorClass
from semroute_service.profile import load_providers
from semroute_service.profile.addresses import is_host_of
from semroute_service.waiting import in_thread

if TYPE_CHECKING:
    from semroute_service.backends.http import HttpClient
    from semroute_service.profile import Backend

_TOO_LATE = "does not answer in time"
_PROBLEMS = {
    ErrorClass.PROVIDER_CONNECT: "cannot be reached",
    ErrorClass.PROVIDER_TIMEOUT: _TOO_LATE,
    ErrorClass.PROVIDER_CREDENTIALS: "refuses the key, or asks for one",
    ErrorClass.PROVIDER_RATE_LIMIT: "is overloaded",
    ErrorClass.PROVIDER_UNAVAILABLE: "says that it is not well",
    ErrorClass.PROVIDER_INTERRUPTED: "breaks off",
}
_UNWELL = frozenset(
    {
        ErrorClass.PROVIDER_CONNECT,
        ErrorClass.PROVIDER_TIMEOUT,
        ErrorClass.PROVIDER_UNAVAILABLE,
        ErrorClass.PROVIDER_INTERRUPTED,
    }
)
"""What settles it at the health endpoint. Any other answer, such as 404, leaves it to the list."""
_LONGEST_METRICS = 1024 * 1024
_NO_LIST = frozenset({ErrorClass.PROVIDER_MODEL_NOT_FOUND, ErrorClass.PROVIDER_PROTOCOL})
"""Answers of a server that is there, and has no list of models where others have one."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What one address said: the models that it lists, or why that is no answer.

    ``well`` is true, too, for a server that answers and has no list, as not all have one.
    ``waiting`` is how many requests wait in its own queue, None where it does not say.
    """

    models: tuple[str, ...] = ()
    problem: str = ""
    well: bool = True
    waiting: int | None = None

    def lacks(self, model: str) -> bool:
        """True where the model with the id ``model`` is not among those listed."""
        return _untagged(model) not in self._names

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(map(_untagged, self.models))


def address(backend: Backend) -> tuple[str, str]:
    """Where a backend is asked, and with whose key."""
    return backend.url, backend.provider.id


def may_be_asked(backend: Backend) -> bool:
    """False for the built-in echo, which has no address, and for a cloud provider's public host."""
    host = (urlsplit(backend.url).hostname or "").rstrip(".")
    clouds = (provider for provider in load_providers().values() if not provider.local)
    return bool(host) and not any(is_host_of(host, cloud) for cloud in clouds)


def _untagged(model: str) -> str:
    """Ollama lists a model under its tag, and knows it without where that is "latest"."""
    return model.removesuffix(":latest")


async def ask(http: HttpClient, backend: Backend, seconds: float) -> Answer:
    """Ask for its health and its models, for ``seconds`` in all. Nothing is raised."""
    try:
        async with asyncio.timeout(seconds):
            await _resolve(backend.url)
            await _check_health(http, backend, seconds)
            return Answer(await http.get_models(backend, seconds))
    except TimeoutError:
        return Answer(problem=_TOO_LATE, well=False)
    except (socket.gaierror, UnicodeError):
        return Answer(problem="has a host name that is not known here", well=False)
    except TlsError as error:
        return Answer(problem=error.detail, well=False)
    except BackendError as error:
        _log.debug("backend %s: %s", backend.name, error.detail)
        told = _PROBLEMS.get(error.error_class, "does not answer as an OpenAI-compatible server")
        return Answer(problem=told, well=error.error_class in _NO_LIST)
    except Exception as error:  # whatever it is, the other backends must not suffer
        _log.warning("backend %s cannot be asked", backend.name, exc_info=error)
        return Answer(problem=f"cannot be asked ({type(error).__name__})", well=False)


async def waiting(http: HttpClient, backend: Backend, seconds: float) -> int | None:
    """How many requests wait in its own queue; None where it does not say. Nothing is raised."""
    provider = backend.provider
    if not (provider.metrics and provider.waiting_metric):
        return None
    try:
        return count(await http.get_metrics(backend, seconds), provider.waiting_metric)
    except Exception as error:  # whatever it is, that is no reason not to ask the backend
        _log.debug("backend %s tells no metrics: %s", backend.name, type(error).__name__)
        return None


def count(metrics: str, name: str) -> int | None:
    """The gauge ``name`` of Prometheus' text form, over all its labels; None where it is not
    there, or is no number that counts something."""
    pattern = rf"^{re.escape(name)}(?:\{{[^\n]*\}})?[ \t]+(\S+)"
    found = re.findall(pattern, metrics[:_LONGEST_METRICS], re.MULTILINE)
    try:
        total = sum(map(float, found))
    except ValueError:
        return None
    return int(total) if found and 0 <= total < math.inf else None


async def _resolve(url: str) -> None:
    """Look up the host. The HTTP client would do so in the event loop's pool, for whose threads
    the program's end waits, however long a name server is silent."""
    parts = urlsplit(url)
    await in_thread(lambda: socket.getaddrinfo(parts.hostname, parts.port))


async def _check_health(http: HttpClient, backend: Backend, seconds: float) -> None:
    """Raise ``BackendError`` where the health endpoint says nothing, or nothing good."""
    if not backend.provider.health:
        return
    try:
        await http.get_health(backend, seconds)
    except BackendError as error:
        if error.error_class in _UNWELL:
            raise
