"""What a server can use here and now: hardware, keys and backends, in plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class GpuSource(enum.StrEnum):
    """Where the knowledge of a GPU comes from."""

    NVML = "nvml"
    SLURM = "slurm"
    BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Gpu:
    """So many GPUs of one type in one place: a machine, a partition or a backend.

    ``type`` is short, such as T4 or H100; ``memory_gb`` is of each, None where it is not known.
    """

    type: str
    count: int
    memory_gb: float | None
    source: GpuSource
    place: str


@dataclass(frozen=True, slots=True)
class Slurm:
    """The partitions that take jobs, and the job that this process runs in, empty outside one."""

    partitions: tuple[str, ...] = ()
    job_id: str = ""
    job_partition: str = ""


@dataclass(frozen=True, slots=True)
class BackendProbe:
    """What a declared backend answered.

    ``models`` are those it lists, ``missing`` those that the profile declares there and it does
    not list, ``problem`` why it counts as not answering.
    """

    backend: str
    profile: str
    url: str
    local: bool
    answers: bool
    models: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that was found. ``seconds`` is how long it took to look; ``problems`` say what
    could not be found out."""

    gpus: tuple[Gpu, ...] = ()
    slurm: Slurm | None = None
    keys: frozenset[str] = frozenset()
    """The cloud providers whose key is set."""
    backends: tuple[BackendProbe, ...] = ()
    encoders: tuple[str, ...] = ()
    cpu_cores: int = 0
    memory_gb: float = 0.0
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
