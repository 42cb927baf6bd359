"""``detect``: what there is to run on, and which profile fits it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from semroute_classifier.documents import ConfigError
from semroute_service.cli import output
from semroute_service.cli.choosing import fit_facts, look_around, requirements
from semroute_service.detection import Gpu, GpuSource, Resources, fits, recommend

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from semroute_service.detection import BackendProbe, Fit, Slurm

_PLACES = {
    GpuSource.NVML: "in this machine, {}",
    GpuSource.SLURM: "in SLURM's partition {}",
    GpuSource.BACKEND: "declared for the backend {}",
}


def detect(options: argparse.Namespace) -> int:
    """Look for hardware, keys and backends; keys themselves are never shown."""
    try:
        profiles, resources = look_around(options)
    except ConfigError as error:
        return output.fail(str(error))
    found, best = fits(profiles, resources), recommend(profiles, resources)
    if options.json:
        output.print_json(_as_dict(resources, found, best))
    else:
        _print(resources, found, best)
    return 0


def _as_dict(resources: Resources, found: Sequence[Fit], best: Fit | None) -> dict[str, Any]:
    return {
        **asdict(resources),
        "keys": sorted(resources.keys),
        "profiles": [fit_facts(fit) for fit in found],
        "recommended": best.profile.name if best else None,
    }


def _print(resources: Resources, found: Sequence[Fit], best: Fit | None) -> None:
    facts = [
        ("machine", f"{resources.cpu_cores} cores, {resources.memory_gb:g} GB"),
        *(("GPU", _gpu(gpu)) for gpu in resources.gpus),
        *([] if resources.gpus else [("GPU", "none")]),
        ("SLURM", _slurm(resources.slurm)),
        ("keys", ", ".join(sorted(resources.keys)) or "none is set"),
        ("encoders", ", ".join(resources.encoders) or "none is built yet"),
        *(("unknown", problem) for problem in resources.problems),
    ]
    output.print_facts(facts)
    if resources.backends:
        print()
        rows = [[p.profile, p.backend, p.url, _told(p)] for p in resources.backends]
        output.print_table(["profile", "backend", "address", "answer"], rows)
    print()
    rows = [[f.profile.name, "yes" if f.fits else "no", requirements(f)] for f in found]
    output.print_table(["profile", "fits", "what it requires"], rows)
    print(f"\nrecommended: {best.profile.name if best else 'none of them'}")


def _gpu(gpu: Gpu) -> str:
    memory = f"{gpu.memory_gb:g} GB each" if gpu.memory_gb else "memory not known"
    return f"{gpu.count} x {gpu.type}, {memory}, {_PLACES[gpu.source].format(gpu.place)}"


def _slurm(slurm: Slurm | None) -> str:
    if slurm is None:
        return "none"
    parts = [f"partitions {', '.join(slurm.partitions) or 'not known'}"]
    if slurm.job_id:
        parts.append(f"job {slurm.job_id} in {slurm.job_partition or 'an unknown partition'}")
    return "; ".join(parts)


def _told(probe: BackendProbe) -> str:
    if not probe.answers:
        return probe.problem
    models = ", ".join(probe.models) or "no model"
    return f"serves {models}" + (f"; NOT {', '.join(probe.missing)}" if probe.missing else "")
