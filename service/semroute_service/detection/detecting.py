"""Everything that can be found out, looked for at once and within a fixed time."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, TypeVar

from semroute_classifier.encoders.engine import kept_engines
from semroute_service.detection.machine import Machine, read_machine
from semroute_service.detection.nvml import nvml_gpus
from semroute_service.detection.probing import declared_gpus, probe_backends
from semroute_service.detection.resources import Resources
from semroute_service.detection.slurm import Cluster, ask_slurm
from semroute_service.profile import load_providers
from semroute_service.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from semroute_service.detection.probing import Ask
    from semroute_service.profile import Profile

T = TypeVar("T")
_SOONER = 0.8
"""The part of the time that a program which is started gets, so that it is ended within it."""
_log = logging.getLogger(__name__)


async def detect(
    profiles: Iterable[Profile],
    home: Path | None,
    environment: Mapping[str, str] = os.environ,
    seconds: float = 1.5,
    asking: Ask | None = None,
) -> Resources:
    """Look for hardware, keys, encoders below ``home`` and the backends of ``profiles``, by a way
    of ``asking`` them where one is given.

    Every look ends after ``seconds``, whatever hangs. What could not be found out is among the
    problems of the result; nothing is raised.
    """
    start = time.perf_counter()
    profiles = tuple(profiles)
    problems: list[str] = []

    async def look(what: str, work: Callable[[list[str]], T]) -> T | None:
        """What ``work`` finds, in a thread. It adds to the problems that it is given, which count
        if it ends in time."""
        told: list[str] = []
        found = None
        try:
            async with asyncio.timeout(seconds):
                found = await in_thread(lambda: work(told))
        except TimeoutError:
            told = [f"{what}: no answer within {seconds:g} s"]
        except Exception as error:  # whatever it is, the other looks must not suffer
            _log.warning("%s cannot be found out", what, exc_info=error)
            told = [f"{what}: {type(error).__name__}"]
        problems.extend(told)
        return found

    gpus, cluster, machine, encoders, probes = await asyncio.gather(
        look("NVML", lambda told: nvml_gpus(seconds, told)),
        look("SLURM", lambda told: ask_slurm(environment, _SOONER * seconds, told)),
        look("cores and memory", lambda _: read_machine()),
        look("encoders", lambda _: _built_encoders(home)),
        probe_backends(profiles, seconds, asking),
    )
    cluster = cluster or Cluster()
    machine = machine or Machine()
    return Resources(
        gpus=(*(gpus or ()), *cluster.gpus, *declared_gpus(profiles, probes)),
        slurm=cluster.slurm,
        keys=_keys_set(environment),
        backends=probes,
        encoders=encoders or (),
        cpu_cores=machine.cpu_cores,
        memory_gb=machine.memory_gb,
        seconds=time.perf_counter() - start,
        problems=tuple(sorted(problems)),
    )


def _keys_set(environment: Mapping[str, str]) -> frozenset[str]:
    """The cloud providers whose key is set; the key itself goes no further."""
    return frozenset(
        name
        for name, provider in load_providers().items()
        if not provider.local and provider.key(environment).strip()
    )


def _built_encoders(home: Path | None) -> tuple[str, ...]:
    """The names of the encoders whose engines are kept below ``home``; none is loaded."""
    if home is None:
        return ()
    return tuple(sorted({str(manifest["name"]) for _, manifest in kept_engines(home)}))
