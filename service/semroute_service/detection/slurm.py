"""What SLURM says of its partitions, their GPUs and the job that this process runs in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semroute_service.detection.gpus import gpu_type, usual_memory_gb
from semroute_service.detection.resources import Gpu, GpuSource, Slurm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ASK = ("--noheader", "--local", "--noconvert", "--format=%R|%a|%t|%D|%G")
"""A partition, its state, the state of some of its nodes, how many they are, what each has."""
_MOST_BYTES = 1024 * 1024
_UNUSABLE = frozenset({"down", "drain", "drng", "fail", "failg", "futr", "inval", "unk"})
"""Nodes in these states take no jobs, and neither do those that do not respond (*)."""
_FLAGS = "*~#!%$@^-+"
_BRACKETS = re.compile(r"\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is of SLURM; ``slurm`` is None where there is none."""

    slurm: Slurm | None = None
    gpus: tuple[Gpu, ...] = ()


def ask_slurm(environment: Mapping[str, str], seconds: float, problems: list[str]) -> Cluster:
    """Ask ``sinfo``, which is killed after ``seconds``; if it fails, that is added to ``problems``.

    Blocks. Without ``sinfo`` there is no SLURM, or all that is known of it is the job.
    """
    job = Slurm(
        job_id=_plain(environment.get("SLURM_JOB_ID", "")),
        job_partition=_plain(environment.get("SLURM_JOB_PARTITION", "")),
    )
    in_job = job if job.job_id else None
    program = shutil.which("sinfo", path=environment.get("PATH", ""))
    if program is None:
        return Cluster(in_job)
    try:
        output = _run([program, *_ASK], environment, seconds)
        partitions, gpus = read_sinfo(output)
    except (OSError, ValueError) as error:
        problems.append(f"SLURM: sinfo {error}")
        return Cluster(in_job)
    return Cluster(replace(job, partitions=partitions), gpus)


def read_sinfo(output: str) -> tuple[tuple[str, ...], tuple[Gpu, ...]]:
    """The partitions that are up and their GPUs; raises ``ValueError`` where it is no such list.

    A node that stands in two partitions is counted in each.
    """
    partitions: dict[str, None] = {}
    counts: Counter[tuple[str, str, float | None]] = Counter()
    for line in output.splitlines():
        if not line.strip() or line.startswith("CLUSTER:"):  # where SLURM_CLUSTERS names several
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 5 or not fields[3].isdecimal() or not fields[0].isprintable():
            raise ValueError("printed something else than was asked of it")
        partition, available, state, nodes, gres = fields
        if available != "up":
            continue
        partitions[partition] = None
        if state.rstrip(_FLAGS) in _UNUSABLE or "*" in state:
            continue
        for name, count in _gpus_of(gres):
            counts[partition, gpu_type(name), usual_memory_gb(name)] += int(nodes) * count
    gpus = tuple(
        Gpu(kind, count, memory, GpuSource.SLURM, partition)
        for (partition, kind, memory), count in counts.items()
    )
    return tuple(partitions), gpus


def _gpus_of(gres: str) -> Iterator[tuple[str, int]]:
    """The type and the number of GPUs in ``gpu:t4:2(S:0-1),gpu:4,shard:8``; a type may be empty."""
    for item in _BRACKETS.sub("", gres).split(","):
        kind, *rest = item.split(":")
        if kind == "gpu":
            count = int(rest.pop()) if rest and rest[-1].isdecimal() else 1
            yield (rest[0] if rest else ""), count


def _run(command: list[str], environment: Mapping[str, str], seconds: float) -> str:
    """What ``command`` prints; raises ``OSError`` or ``ValueError`` with what it did instead."""
    with subprocess.Popen(  # noqa: S603 - SLURM's own program, with arguments of our own
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        late = threading.Timer(seconds, _kill, [process])
        late.daemon = True
        late.start()
        try:
            assert process.stdout
            output = process.stdout.read(_MOST_BYTES + 1)
            if len(output) > _MOST_BYTES:
                _kill(process)
                raise ValueError("printed without end")
            status = process.wait()
        finally:
            late.cancel()
    if status == -signal.SIGKILL:
        raise ValueError(f"did not answer within {seconds:.1f} s")
    if status:
        raise ValueError(f"failed with status {status}; run it by hand to see why")
    return output.decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it has started, which is a group of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _plain(text: str) -> str:
    return text if text.isprintable() else ""
