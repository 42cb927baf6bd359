"""Which profile fits: the tree is data, read from the profiles themselves.

Profiles are tried in the order of ``hardware.rank``, the lowest first; the first whose
requirements are all met is taken. One without a rank is never chosen by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semroute_service.detection.gpus import gpu_type
from semroute_service.profile import load_providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from semroute_service.detection.resources import Resources
    from semroute_service.profile import Hardware, Profile

MEMORY_TOLERANCE = 0.1
"""What a GPU may lack of the memory that is asked for: a "16 GB" T4 reports 15."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a profile expects of the place where it runs, in words."""

    what: str
    met: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """How a profile stands to what was found."""

    profile: Profile
    fits: bool
    requirements: tuple[Requirement, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is required and was not found."""
        return tuple(r.what for r in self.requirements if not r.met)


def fits(profiles: Iterable[Profile], resources: Resources) -> list[Fit]:
    """Every profile's fit in the order of choice; those without a rank come last, by name."""
    found = []
    for profile in sorted(profiles, key=_place):
        requirements = tuple(_requirements(profile, resources))
        found.append(Fit(profile, all(r.met for r in requirements), requirements))
    return found


def recommend(
    profiles: Iterable[Profile], resources: Resources, strict: bool = False
) -> Fit | None:
    """The first ranked profile that fits; None where there is none.

    With ``strict``, a profile that requires nothing fits only where one of its own local
    backends, the built-in echo aside, answers.
    """
    for fit in fits(profiles, resources):
        if fit.profile.hardware.rank is None or not fit.fits:
            continue
        if fit.requirements or not strict or local_servers(fit.profile, resources):
            return fit
    return None


def local_servers(profile: Profile, resources: Resources) -> tuple[str, ...]:
    """The local backends of ``profile`` that answer; the built-in echo is no server."""
    answering = {p.backend for p in resources.backends if p.profile == profile.name and p.answers}
    return tuple(
        backend.name
        for backend in profile.backends.values()
        if backend.local and backend.provider.protocol != "echo" and backend.name in answering
    )


def _place(profile: Profile) -> tuple[bool, int, str]:
    rank = profile.hardware.rank
    return rank is None, rank or 0, profile.name


def _requirements(profile: Profile, resources: Resources) -> Iterator[Requirement]:
    """Each thing that is required, and whether it is there. Any key is that of a provider which
    the profile names; another's would be of no use to it."""
    hardware = profile.hardware
    named = {model.backend.provider.id for model in profile.models.values()}
    useful = resources.keys & named.union(hardware.cloud_keys)
    there = {gpu_type(gpu.type) for gpu in resources.gpus}
    for name in hardware.gpu_types:
        yield Requirement(f"a GPU of type {name}", gpu_type(name) in there)
    if hardware.min_gpu_memory_gb is not None:
        kind = " or ".join(hardware.gpu_types) or "GPU"
        what = f"{hardware.min_gpu_memory_gb:g} GB on one {kind}"
        yield Requirement(what, _has_memory(hardware, resources))
    for name in hardware.cloud_keys:
        met = bool(useful) if name == "any" else name in resources.keys
        yield Requirement(_key(name), met)
    if hardware.slurm:
        yield Requirement("SLURM", resources.slurm is not None)


def _has_memory(hardware: Hardware, resources: Resources) -> bool:
    """Whether one GPU of the required types, or of any where none is named, has the memory. A
    memory that is not known is not enough."""
    wanted = {gpu_type(name) for name in hardware.gpu_types}
    least = (hardware.min_gpu_memory_gb or 0.0) * (1 - MEMORY_TOLERANCE)
    return any(
        gpu.memory_gb is not None and gpu.memory_gb >= least
        for gpu in resources.gpus
        if not wanted or gpu_type(gpu.type) in wanted
    )


def _key(provider: str) -> str:
    if provider == "any":
        return "the key of any cloud provider"
    known = load_providers()[provider]
    return f"the key of {known.name} ({' or '.join(known.key_env)})"
