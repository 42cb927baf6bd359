"""How hardware is read: names of GPUs, what sinfo prints, and the limits of a job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

from semroute_service.detection import Gpu, GpuSource
from semroute_service.detection.gpus import gpu_type, usual_memory_gb
from semroute_service.detection.machine import read_machine
from semroute_service.detection.slurm import read_sinfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "kind", "memory"),
    [
        ("Tesla T4", "T4", 16),
        ("NVIDIA T4", "T4", 16),
        ("tesla_t4", "T4", 16),
        ("t4", "T4", 16),
        ("NVIDIA L4", "L4", 24),
        ("NVIDIA L40", "L40", 48),
        ("NVIDIA L40S", "L40S", 48),
        ("l40s", "L40S", 48),
        ("NVIDIA H100 80GB HBM3", "H100", 80),
        ("NVIDIA H100 PCIe", "H100", 80),
        ("nvidia_h100_nvl", "H100", 80),
        ("NVIDIA H200", "H200", 141),
        ("NVIDIA GH200 480GB", "GH200", 96),
        ("NVIDIA A100-SXM4-80GB", "A100", 80),
        ("NVIDIA A100-PCIE-40GB", "A100", 40),
        ("a100", "A100", None),
        ("NVIDIA A10", "A10", 24),
        ("NVIDIA A10G", "A10G", 24),
        ("Tesla V100-SXM2-16GB", "V100", 16),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", None),
        ("NVIDIA RTX A6000", "RTX A6000", 48),
        ("nvidia_h100_80gb_hbm3_1g.10gb", "H100-1G.10GB", 10),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "A100-3G.20GB", 20),
        ("1g.23gb", "1G.23GB", 23),
    ],
)
def test_a_gpu_has_one_name(name: str, kind: str, memory: float | None) -> None:
    """A driver's, SLURM's and a person's name of a GPU are one type; memory is told if known."""
    assert (gpu_type(name), usual_memory_gb(name)) == (kind, memory)
    assert gpu_type(kind) == kind


def test_a_gpu_without_a_name_is_unknown() -> None:
    """What names a maker and no type is no type."""
    assert {gpu_type(name) for name in ("", " ", "tesla", "NVIDIA")} == {"unknown"}
    assert usual_memory_gb("tesla") is None


@pytest.mark.parametrize(
    ("output", "partitions", "gpus"),
    [
        ("gpu|up|idle|10|gpu:t4:2(S:0-1)\n", ("gpu",), [("T4", 20, 16.0, "gpu")]),
        ("gpu|up|mix|3|gpu:tesla_t4:1\n", ("gpu",), [("T4", 3, 16.0, "gpu")]),
        ("gpu|up|alloc|2|gpu:4\n", ("gpu",), [("unknown", 8, None, "gpu")]),
        ("gpu|up|idle|1|gpu:(null):3(IDX:0-2)\n", ("gpu",), [("unknown", 3, None, "gpu")]),
        ("cpu|up|idle|40|(null)\n", ("cpu",), []),
        (
            "a|up|idle|1|gpu:h100:2(S:0,2),gpu:h100:2(S:1,3),shard:h100:64\n",
            ("a",),
            [("H100", 4, 80.0, "a")],
        ),
        (
            "mig|up|idle|2|gpu:a100_1g.5gb:7(S:0),gpu:a100:1(S:0)\n",
            ("mig",),
            [("A100-1G.5GB", 14, 5.0, "mig"), ("A100", 2, None, "mig")],
        ),
        (
            "l4|up|idle|1|gpu:l4:4\nl4|up|mix-|2|gpu:l4:4\nt4|up|idle~|1|gpu:t4:4\n",
            ("l4", "t4"),
            [("L4", 12, 24.0, "l4"), ("T4", 4, 16.0, "t4")],
        ),
        ("old|down|idle|9|gpu:k80:2\nnew|inact|idle|1|gpu:t4:1\n", (), []),
        ("g|up|down*|1|gpu:t4:1\ng|up|drain|2|gpu:t4:1\ng|up|idle*|4|gpu:t4:1\n", ("g",), []),
        ("CLUSTER: north\ngpu|up|idle|1|gpu:t4:1\n\n", ("gpu",), [("T4", 1, 16.0, "gpu")]),
        ("", (), []),
    ],
)
def test_sinfo_is_read(
    output: str, partitions: tuple[str, ...], gpus: Sequence[tuple[str, int, float | None, str]]
) -> None:
    """Partitions that are up are listed, and the GPUs of their nodes that take jobs are counted."""
    assert read_sinfo(output) == (
        partitions,
        tuple(
            Gpu(kind, count, memory, GpuSource.SLURM, place) for kind, count, memory, place in gpus
        ),
    )


def group(root: Path, membership: str, **files: str) -> Path:
    """A file system with a process in a control group; ``files`` by path, / written as __."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MEMORY = round(psutil.virtual_memory().total / 2**30, 1)


@pytest.mark.parametrize(
    ("membership", "files", "cores", "memory"),
    [
        ("", {}, CORES, MEMORY),
        ("0::/\n", {"memory_DOT_max": "2147483648", "cpu_DOT_max": "50000 100000"}, 1, 2.0),
        ("0::/\n", {"memory_DOT_max": "max", "cpu_DOT_max": "max 100000"}, CORES, MEMORY),
        (
            "0::/slurm/job_7/step_0\n",
            {
                "slurm__job_7__memory_DOT_max": "1073741824",
                "slurm__job_7__step_0__memory_DOT_max": "max",
                "slurm__job_7__step_0__cpu_DOT_max": "100000 100000",
            },
            1,
            1.0,
        ),
        (
            "4:memory:/job\n2:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n",
            {
                "memory__job__memory_DOT_limit_in_bytes": "1610612736",
                "cpu__job__cpu_DOT_cfs_quota_us": "100000",
                "cpu__job__cpu_DOT_cfs_period_us": "100000",
            },
            1,
            1.5,
        ),
        (
            "4:memory:/docker/of/the/host\n2:cpu:/docker/of/the/host\n",
            {
                "memory__memory_DOT_limit_in_bytes": "1073741824",
                "cpu__cpu_DOT_cfs_quota_us": "-1",
                "cpu__cpu_DOT_cfs_period_us": "100000",
            },
            CORES,
            1.0,
        ),
        ("4:memory:/\n", {"memory__memory_DOT_limit_in_bytes": str(2**63 - 4096)}, CORES, MEMORY),
        ("nonsense\n::\n", {"memory_DOT_max": "nonsense"}, CORES, MEMORY),
    ],
    ids=["none", "v2", "v2 without limits", "v2 job", "v1", "v1 container", "v1 max", "nonsense"],
)
def test_the_limits_of_a_job_count(
    tmp_path: Path, membership: str, files: dict[str, str], cores: int, memory: float
) -> None:
    """Where the control group or one above it has less than the machine, that is what there is."""
    machine = read_machine(group(tmp_path, membership, **files))
    assert machine.cpu_cores == cores
    assert machine.memory_gb == pytest.approx(memory)
