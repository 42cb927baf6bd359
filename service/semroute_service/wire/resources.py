"""What was detected, out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from semroute.v1 import profile_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from semroute_service.detection import BackendProbe, Fit, Gpu, Resources, Slurm


def write_detection(
    resources: Resources, fits: Iterable[Fit], recommended: Fit | None
) -> profile_pb2.DetectResourcesResponse:
    return profile_pb2.DetectResourcesResponse(
        resources=_resources(resources),
        fits=[_fit(fit) for fit in fits],
        recommended=recommended.profile.name if recommended else "",
    )


def _resources(resources: Resources) -> profile_pb2.Resources:
    elapsed = Duration()
    elapsed.FromMicroseconds(round(resources.seconds * 1e6))
    return profile_pb2.Resources(
        gpus=[_gpu(gpu) for gpu in resources.gpus],
        slurm=_slurm(resources.slurm) if resources.slurm else None,
        providers_with_key=sorted(resources.keys),
        backends=[_probe(probe) for probe in resources.backends],
        encoders=resources.encoders,
        cpu_cores=resources.cpu_cores,
        memory_gb=resources.memory_gb,
        elapsed=elapsed,
        problems=resources.problems,
    )


def _gpu(gpu: Gpu) -> profile_pb2.Gpu:
    return profile_pb2.Gpu(
        type=gpu.type,
        count=gpu.count,
        memory_gb=gpu.memory_gb,
        source=f"GPU_SOURCE_{gpu.source.name}",
        place=gpu.place,
    )


def _slurm(slurm: Slurm) -> profile_pb2.Slurm:
    return profile_pb2.Slurm(
        partitions=slurm.partitions, job_id=slurm.job_id, job_partition=slurm.job_partition
    )


def _probe(probe: BackendProbe) -> profile_pb2.BackendProbe:
    return profile_pb2.BackendProbe(
        backend=probe.backend,
        profile=probe.profile,
        url=probe.url,
        answers=probe.answers,
        models=probe.models,
        missing_models=probe.missing,
        problem=probe.problem,
    )


def _fit(fit: Fit) -> profile_pb2.ProfileFit:
    requirements = [profile_pb2.Requirement(what=r.what, met=r.met) for r in fit.requirements]
    return profile_pb2.ProfileFit(
        profile=fit.profile.name, fits=fit.fits, requirements=requirements
    )
