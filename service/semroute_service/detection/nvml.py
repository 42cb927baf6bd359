"""The GPUs of this machine, from NVIDIA's own library. The one place that loads it."""

from __future__ import annotations

import platform
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from semroute_service.detection.gpus import gpu_type
from semroute_service.detection.resources import Gpu, GpuSource

if TYPE_CHECKING:
    from collections.abc import Iterator

_GB = 2**30
"""A GB as makers of GPUs count it: an "80 GB" H100 has 79.6 of these."""
_one_at_a_time = threading.Lock()


def nvml_gpus(seconds: float, problems: list[str]) -> tuple[Gpu, ...]:
    """The GPUs; what could not be read of them is added to ``problems``.

    Blocks, and may hang with the driver. However often it is called, one call at most hangs there:
    the next one waits ``seconds`` for its turn and raises ``TimeoutError``.
    """
    if not _one_at_a_time.acquire(timeout=seconds):
        raise TimeoutError
    try:
        return _look(problems)
    finally:
        _one_at_a_time.release()


def _look(problems: list[str]) -> tuple[Gpu, ...]:
    try:
        import pynvml
    except ImportError:
        problems.append("NVML: the package nvidia-ml-py is not installed")
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        # Without the library there is no driver, and so no GPU: nothing is left unknown.
        if error.value != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            problems.append(f"NVML: {error}")
        return ()
    try:
        return _count(pynvml, problems)
    finally:
        pynvml.nvmlShutdown()


def _count(nvml: Any, problems: list[str]) -> tuple[Gpu, ...]:
    counts: Counter[tuple[str, float]] = Counter()
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            for device in _parts(nvml, nvml.nvmlDeviceGetHandleByIndex(index)):
                memory = nvml.nvmlDeviceGetMemoryInfo(device).total / _GB
                counts[gpu_type(nvml.nvmlDeviceGetName(device)), round(memory, 1)] += 1
        except nvml.NVMLError as error:
            problems.append(f"NVML: GPU {index}: {error}")
    return tuple(
        Gpu(kind, count, memory, GpuSource.NVML, platform.node())
        for (kind, memory), count in counts.items()
    )


def _parts(nvml: Any, device: Any) -> Iterator[Any]:
    """The slices of a GPU that is cut into slices, otherwise the GPU itself."""
    try:
        sliced, _ = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:  # most know no slices
        sliced = False
    if not sliced:
        yield device
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_NOT_FOUND:  # of the most there could be
                raise
