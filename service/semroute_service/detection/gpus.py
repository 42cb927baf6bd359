"""What a GPU is called, and how much memory one of its type has."""

from __future__ import annotations

import re

UNKNOWN = "unknown"
"""The type of a GPU whose source does not say."""

_MEMORY_GB = {
    "T4": 16.0,
    "A2": 16.0,
    "A10": 24.0,
    "A10G": 24.0,
    "A16": 16.0,
    "A30": 24.0,
    "A40": 48.0,
    "L4": 24.0,
    "L40": 48.0,
    "L40S": 48.0,
    "H100": 80.0,
    "H200": 141.0,
    "GH200": 96.0,
    "B200": 180.0,
    "RTX A6000": 48.0,
}
"""Of each, the least that is sold under the name. One that is sold with very different memories,
such as the A100 and the V100, is not here."""

_MAKERS = frozenset({"NVIDIA", "TESLA", "GEFORCE", "QUADRO", "GPU"})
_FORMS = re.compile(r"PCIE|SXM\d?|DGXS|NVL|HBM\d\w?|MIG")
_SIZE = re.compile(r"(\d+)GB")
_SLICE = re.compile(r"(\d+G)\.(\d+)GB")


def gpu_type(name: str) -> str:
    """The short type in what a driver, SLURM or a person calls a GPU.

    Maker, form and memory are left out: "NVIDIA H100 80GB HBM3" and "nvidia_h100_nvl" are H100.
    A slice of a GPU is a type of its own, as it is not the whole: H100-1G.10GB.
    """
    words = re.split(r"[\s_-]+", name.upper())
    parts = [word for word in words if _SLICE.fullmatch(word)]
    kept = [
        word
        for word in words
        if word not in {"", *_MAKERS, *parts}
        and not _FORMS.fullmatch(word)
        and not _SIZE.fullmatch(word)
    ]
    return "-".join(filter(None, [" ".join(kept), *parts[:1]])) or UNKNOWN


def usual_memory_gb(name: str) -> float | None:
    """The memory of a GPU of that name in GB, None where the name does not tell it."""
    kind = gpu_type(name)
    if part := _SLICE.search(kind):
        return float(part[2])
    if kind in _MEMORY_GB:
        return _MEMORY_GB[kind]
    size = _SIZE.search(name.upper())
    return float(size[1]) if size else None
