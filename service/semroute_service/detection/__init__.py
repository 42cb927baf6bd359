"""What is there to run on, and which profile fits it."""

from semroute_service.detection.resources import (
    BackendProbe,
    Gpu,
    GpuSource,
    Resources,
    Slurm,
)

__all__ = ["BackendProbe", "Gpu", "GpuSource", "Resources", "Slurm"]
