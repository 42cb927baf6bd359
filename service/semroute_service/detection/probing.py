"""Which declared backends answer, and whether they serve what is declared there."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from semroute_service.backends.base import BackendError
from semroute_service.backends.http import HttpClient
from semroute_service.decision import ErrorClass
from semroute_service.detection.gpus import gpu_type, usual_memory_gb
from semroute_service.detection.resources import BackendProbe, Gpu, GpuSource
from semroute_service.detection.waiting import in_thread
from semroute_service.profile import load_providers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_service.profile import Backend, Profile

_MOST_MODELS = 200
_LONGEST_NAME = 200
"""A model list is another program's text: more of it, or longer, is not passed on."""
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
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one address said: the models that it lists, or why it does not answer."""

    models: tuple[str, ...] = ()
    problem: str = ""


async def probe_backends(profiles: Sequence[Profile], seconds: float) -> tuple[BackendProbe, ...]:
    """Ask every backend that there is to ask, all at once, each for at most ``seconds``.

    Those of several profiles at one address are asked once. The built-in echo has no address, and
    a cloud provider's public host is never contacted: neither is in the result.
    """
    declared = [(p, b) for p in profiles for b in p.backends.values() if _may_be_asked(b)]
    distinct = {_address(backend): backend for _, backend in declared}
    http = HttpClient()
    try:
        answers = await asyncio.gather(*(_ask(http, b, seconds) for b in distinct.values()))
    finally:
        await http.close()
    told = dict(zip(distinct, answers, strict=True))
    return tuple(_probe(profile, backend, told[_address(backend)]) for profile, backend in declared)


def declared_gpus(profiles: Sequence[Profile], probes: Sequence[BackendProbe]) -> tuple[Gpu, ...]:
    """What the backends that answer are declared to run on; one address counts once, and so does
    a GPU with a name, which several share."""
    answering = {(probe.profile, probe.backend) for probe in probes if probe.answers}
    gpus: dict[object, Gpu] = {}
    for profile in profiles:
        for backend in profile.backends.values():
            gpu = backend.gpu
            if gpu and (profile.name, backend.name) in answering:
                memory = gpu.memory_gb or usual_memory_gb(gpu.type)
                there = Gpu(gpu_type(gpu.type), gpu.count, memory, GpuSource.BACKEND, backend.name)
                gpus.setdefault((gpu.name, gpu.type) if gpu.name else (backend.url, gpu), there)
    return tuple(gpus.values())


def _may_be_asked(backend: Backend) -> bool:
    host = (urlsplit(backend.url).hostname or "").rstrip(".")
    return bool(host) and not any(f".{host}".endswith(f".{public}") for public in _public_hosts())


@functools.cache
def _public_hosts() -> frozenset[str]:
    """The hosts of the cloud providers in the catalogue."""
    clouds = [provider for provider in load_providers().values() if not provider.local]
    return frozenset(filter(None, (urlsplit(provider.url).hostname for provider in clouds)))


def _address(backend: Backend) -> tuple[str, str]:
    """Where a backend is asked, and with whose key."""
    return backend.url, backend.provider.id


async def _ask(http: HttpClient, backend: Backend, seconds: float) -> _Answer:
    try:
        async with asyncio.timeout(seconds):
            await _resolve(backend.url)
            await _check_health(http, backend, seconds)
            return _Answer(await http.get_models(backend, seconds))
    except TimeoutError:
        return _Answer(problem=_TOO_LATE)
    except (socket.gaierror, UnicodeError):
        return _Answer(problem="has a host name that is not known here")
    except BackendError as error:
        _log.info("backend %s: %s", backend.name, error.detail)
        told = _PROBLEMS.get(error.error_class, "does not answer as an OpenAI-compatible server")
        return _Answer(problem=told)
    except Exception as error:  # whatever it is, the other backends must not suffer
        _log.warning("backend %s cannot be asked", backend.name, exc_info=error)
        return _Answer(problem=f"cannot be asked ({type(error).__name__})")


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


def _probe(profile: Profile, backend: Backend, answer: _Answer) -> BackendProbe:
    own = [m.id for m in profile.models.values() if m.backend.name == backend.name]
    declared = dict.fromkeys(filter(None, own))
    # Ollama lists a model under its tag, and knows it without where that is "latest".
    listed = {name.removesuffix(":latest") for name in answer.models}
    missing = [name for name in declared if name.removesuffix(":latest") not in listed]
    plain = [n for n in answer.models if n.isprintable() and len(n) <= _LONGEST_NAME]
    return BackendProbe(
        backend=backend.name,
        profile=profile.name,
        url=backend.url,
        local=backend.local,
        answers=not answer.problem,
        models=tuple(plain[:_MOST_MODELS]),
        missing=() if answer.problem else tuple(missing),
        problem=answer.problem,
    )
