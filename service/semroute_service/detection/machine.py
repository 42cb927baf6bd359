"""Processor cores and memory that this process may use: the machine's, or its job's or
container's where that has less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_GB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """``memory_gb`` is in GB of 2**30 bytes."""

    cpu_cores: int = 0
    memory_gb: float = 0.0


def read_machine(root: Path = Path("/")) -> Machine:
    """Cores and memory. Limits are read in the control groups below ``root``, of version 2 and 1,
    which only Linux has."""
    cores = [_cores(), *(math.ceil(quota) for quota in _cpu_limits(root))]
    memory = [psutil.virtual_memory().total, *_memory_limits(root)]
    return Machine(max(1, min(cores)), round(min(memory) / _GB, 1))


def _cores() -> int:
    """Those that the process may be scheduled on, where the system tells."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1


def _memory_limits(root: Path) -> Iterator[int]:
    for folder in _groups(root, ""):
        yield from _numbers(folder / "memory.max")
    for folder in _groups(root, "memory"):
        yield from _numbers(folder / "memory.limit_in_bytes")


def _cpu_limits(root: Path) -> Iterator[float]:
    """Processor time in each second, in seconds."""
    for folder in _groups(root, ""):
        yield from _quota(_numbers(folder / "cpu.max"))
    for folder in _groups(root, "cpu"):
        files = [folder / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        yield from _quota([number for file in files for number in _numbers(file)])


def _quota(numbers: list[int]) -> Iterator[float]:
    """Of quota and period, in microseconds."""
    if len(numbers) == 2:
        yield numbers[0] / numbers[1]


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The process's group of a controller and all above it, as each may limit it; the controller
    of version 2 is empty.

    Inside a container the path may be the host's and not be there; the topmost is the container's.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _numbers(file: Path) -> list[int]:
    """The numbers in a file, none where it is not there, is no such file, or says "max" or -1."""
    try:
        numbers = [int(word) for word in file.read_text(encoding="utf-8").split()]
    except (OSError, ValueError):
        return []
    return numbers if all(number > 0 for number in numbers) else []
