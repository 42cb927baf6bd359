"""Which servers a profile's models need, on which GPUs; nothing is planned that cannot run."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semroute_service.detection.gpus import gpu_type
from semroute_service.recipes import checks
from semroute_service.recipes.arguments import arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from semroute_service.profile import Backend, DeclaredGpu, Profile
    from semroute_service.profile.serving import SlurmSpec
    from semroute_service.recipes.memory import Need

PORT = 8000
"""The first port that a script tries, and the one that a container's service has."""


class RecipeError(Exception):
    """No recipe can be written; ``problems`` say for what, why and what would be right."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Server:
    """One vLLM process; ``name`` is fit for a host and a file. ``arguments`` lack host and
    port."""

    name: str
    model: str
    backend: Backend
    gpu: DeclaredGpu
    need: Need
    arguments: tuple[str, ...]
    port: int = PORT

    @property
    def variable(self) -> str:
        """What the backend's url takes its place from; empty where that is fixed."""
        return self.backend.url_variable

    @property
    def share(self) -> float:
        return self.need.serve.gpu_memory_utilization


@dataclass(frozen=True, slots=True)
class Job:
    """The servers on the same GPUs, started one after the other, since each measures what memory
    is free. ``devices`` are the GPUs' numbers, were all of their type in one machine."""

    name: str
    servers: tuple[Server, ...]
    devices: tuple[int, ...]

    @property
    def gpu(self) -> DeclaredGpu:
        return self.servers[0].gpu

    @property
    def slurm(self) -> SlurmSpec | None:
        return next((s.backend.slurm for s in self.servers if s.backend.slurm), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs of a profile, and the vLLM backends of which it does not say how to launch them."""

    name: str
    jobs: tuple[Job, ...]
    unserved: tuple[str, ...]

    @property
    def servers(self) -> Iterator[Server]:
        for job in self.jobs:
            yield from job.servers


def plan(profile: Profile) -> Plan:
    """The launch of every model that has a ``serve`` part; raises ``RecipeError``."""
    problems: list[str] = []
    servers = list(_servers(profile, problems))
    problems += _clashes(servers)
    jobs = () if problems else tuple(_jobs(servers))
    for job in jobs:
        if len({server.gpu for server in job.servers}) > 1:
            problems.append(f"backends: the GPU {job.name} is not declared alike everywhere")
        problems += checks.crowding(job.name, {s.model: s.share for s in job.servers})
    if not servers and not problems:
        problems.append(f"{profile.name}: no model has a serve part, so there is nothing to launch")
    if problems:
        raise RecipeError(problems)
    launched = {server.backend.name for server in servers}
    vllm = {name for name, b in profile.backends.items() if b.provider.id == "vllm"}
    return Plan(slug(profile.name), jobs, tuple(sorted(vllm - launched)))


def slug(name: str) -> str:
    """``name`` as a host, a file and a unit of work may be called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")


def _servers(profile: Profile, problems: list[str]) -> Iterator[Server]:
    """What can be launched; what cannot is added to ``problems``."""
    for model in profile.models.values():
        if not model.serve:
            continue
        found = list(checks.faults(model, model.serve))
        problems += found
        gpu = model.backend.gpu
        need = checks.need(model, model.serve, gpu) if gpu and not found else None
        if gpu and need:
            name, options = slug(model.backend.name), arguments(model, model.serve, need)
            yield Server(name, model.name, model.backend, gpu, need, options)


def _clashes(servers: Iterable[Server]) -> Iterator[str]:
    """Servers that could not be told apart: a vLLM server has one model, and a name."""
    named: defaultdict[str, list[Server]] = defaultdict(list)
    for server in servers:
        named[server.name].append(server)
    for name, same in named.items():
        if len(same) > 1:
            models = " and ".join(server.model for server in same)
            yield f'backends: {models} would both have a server called "{name}"; rename one'
        elif not name:
            yield f"backends.{same[0].backend.name}: the name needs a letter or a digit"


def _jobs(servers: Iterable[Server]) -> Iterator[Job]:
    """Servers that name the same GPU together, the others alone."""
    groups: dict[tuple[str, str], list[Server]] = {}
    for server in servers:
        shared = slug(server.gpu.name)
        groups.setdefault(("gpu", shared) if shared else ("own", server.name), []).append(server)
    used: Counter[str] = Counter()
    for (_, name), group in groups.items():
        gpu = group[0].gpu
        first = used[gpu_type(gpu.type)]
        used[gpu_type(gpu.type)] += gpu.count
        numbered = tuple(replace(server, port=PORT + i) for i, server in enumerate(group))
        yield Job(name, numbered, tuple(range(first, first + gpu.count)))
