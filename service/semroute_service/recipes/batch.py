"""SLURM batch scripts: the launch script with what SLURM is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.detection.gpus import gpu_type
from semroute_service.profile.serving import SlurmSpec
from semroute_service.recipes import script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.recipes.plan import Job, Plan

_GRACE_SECONDS = 60
"""How long before its time limit a job is told to end."""


def files(plan: Plan) -> dict[str, str]:
    """A batch script for each job, for ``sbatch``."""
    script.check_registered(plan)
    return {f"{job.name}.sbatch": _script(job) for job in plan.jobs}


def _script(job: Job) -> str:
    options = "".join(f"#SBATCH {option}\n" for option in _options(job))
    return script.script(job, options)


def _options(job: Job) -> Iterator[str]:
    slurm = job.slurm or SlurmSpec()
    yield f"--job-name={job.name}"
    if slurm.partition:
        yield f"--partition={slurm.partition}"
    if slurm.account:
        yield f"--account={slurm.account}"
    yield "--nodes=1"
    yield "--ntasks=1"
    kind = slurm.gpu or gpu_type(job.gpu.type).lower().replace(" ", "_")
    yield f"--gres=gpu:{kind}:{job.gpu.count}"
    if slurm.time_limit:
        yield f"--time={slurm.time_limit}"
    yield "--output=%x-%j.log"
    # B: the script itself is told, and not only what it started.
    yield f"--signal=B:TERM@{_GRACE_SECONDS}"
    yield from slurm.options
