"""What is there to run on, and which profile fits it."""

from semroute_service.detection.detecting import detect
from semroute_service.detection.resources import (
    BackendProbe,
    Gpu,
    GpuSource,
    Resources,
    Slurm,
)
from semroute_service.detection.selection import (
    Fit,
    Requirement,
    fits,
    local_servers,
    recommend,
)

__all__ = [
    "BackendProbe",
    "Fit",
    "Gpu",
    "GpuSource",
    "Requirement",
    "Resources",
    "Slurm",
    "detect",
    "fits",
    "local_servers",
    "recommend",
]
