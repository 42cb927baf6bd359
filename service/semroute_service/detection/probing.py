"""Which declared backends answer, and whether they serve what is declared there."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from semroute_service.backends.checking import Answer, address, ask, may_be_asked
from semroute_service.backends.http import HttpClient
from semroute_service.detection.gpus import gpu_type, usual_memory_gb
from semroute_service.detection.resources import BackendProbe, Gpu, GpuSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from semroute_service.profile import Backend, Profile

Ask: TypeAlias = "Callable[[Backend, float], Awaitable[Answer]]"
"""Asks a backend how it is, for so many seconds; raises nothing."""

_MOST_MODELS = 200
_LONGEST_NAME = 200
"""A model list is another program's text: more of it, or longer, is not passed on."""


async def probe_backends(
    profiles: Sequence[Profile], seconds: float, asking: Ask | None = None
) -> tuple[BackendProbe, ...]:
    """Ask every backend that there is to ask, all at once, each for at most ``seconds``.

    Those of several profiles at one address are asked once. The built-in echo has no address, and
    a cloud provider's public host is never contacted: neither is in the result. A server gives its
    own way of ``asking``, so that it learns what is found.
    """
    declared = [(p, b) for p in profiles for b in p.backends.values() if may_be_asked(b)]
    distinct = {address(backend): backend for _, backend in declared}
    async with _asking(asking) as by:
        answers = await asyncio.gather(*(by(b, seconds) for b in distinct.values()))
    told = dict(zip(distinct, answers, strict=True))
    return tuple(_probe(profile, backend, told[address(backend)]) for profile, backend in declared)


@contextlib.asynccontextmanager
async def _asking(asking: Ask | None) -> AsyncIterator[Ask]:
    if asking:
        yield asking
        return
    http = HttpClient()
    try:
        yield partial(ask, http)
    finally:
        await http.close()


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


def _probe(profile: Profile, backend: Backend, answer: Answer) -> BackendProbe:
    own = [m.id for m in profile.models.values() if m.backend.name == backend.name]
    declared = dict.fromkeys(filter(None, own))
    missing = [name for name in declared if answer.lacks(name)]
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
