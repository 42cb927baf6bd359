"""Detection of hardware, SLURM, keys and encoders: what is there is found, and nothing hangs it."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pynvml
import pytest

from processes import run
from semroute_classifier.encoders.engine import engine_folder
from semroute_service.detection import Gpu, GpuSource, Resources, Slurm, detect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

WITHIN_SECONDS = 2.0
"""The issue's bound on the whole detection, whatever hangs."""
GENEROUS = 10.0
"""Seconds after which what hangs gives up, against hanging only."""
MIB = 2**20
HOSTNAME = platform.node()


def found(environment: Mapping[str, str] | None = None, home: Path | None = None) -> Resources:
    """What a detection finds that runs on a loop of its own, to that loop's end, in time."""
    start = time.perf_counter()
    resources = asyncio.run(detect([], home, environment or {}))
    assert time.perf_counter() - start < WITHIN_SECONDS
    assert 0 < resources.seconds < WITHIN_SECONDS
    return resources


@dataclass
class Sinfo:
    """A folder for PATH whose ``sinfo`` is a shell script."""

    folder: Path

    def does(self, script: str) -> dict[str, str]:
        """The environment in which ``sinfo`` does this."""
        program = self.folder / "sinfo"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def sinfo(tmp_path: Path) -> Sinfo:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Sinfo(folder)


def test_without_sinfo_there_is_no_slurm(tmp_path: Path) -> None:
    """No such program means no SLURM, which is no problem."""
    resources = found({"PATH": str(tmp_path)})
    assert (resources.slurm, resources.problems) == (None, ())


def test_slurm_answers(sinfo: Sinfo) -> None:
    """Partitions, GPUs and the job that the process runs in are found; sinfo has no shell."""
    environment = sinfo.does(
        'test "$*" = "--noheader --local --noconvert --format=%R|%a|%t|%D|%G" || exit 3\n'
        'echo "gpu|up|idle|5|gpu:t4:2(S:0-1)"; echo "cpu|up|mix|9|(null)"'
    )
    resources = found({**environment, "SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "cpu"})
    assert resources.slurm == Slurm(("gpu", "cpu"), "4711", "cpu")
    assert resources.gpus == (Gpu("T4", 10, 16.0, GpuSource.SLURM, "gpu"),)
    assert resources.problems == ()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo broken >&2; exit 7", "SLURM: sinfo failed with status 7; run it by hand to see why"),
        ("echo what am I", "SLURM: sinfo printed something else than was asked of it"),
        ("echo 'gpu|up|idle|many|gpu:t4:1'", "SLURM: sinfo printed something else than was asked"),
        ("exec yes 'gpu|up|idle|1|gpu:t4:1'", "SLURM: sinfo printed without end"),
        ("exec sleep 61.7", "SLURM: sinfo did not answer within 1.2 s"),
        ("sleep 61.7 & wait", "SLURM: sinfo did not answer within 1.2 s"),
    ],
    ids=["fails", "nonsense", "no number", "endless", "sleeps", "waits for a child"],
)
def test_a_bad_sinfo_is_a_problem(sinfo: Sinfo, script: str, problem: str) -> None:
    """Whatever sinfo does instead of answering, it is told and ends; the job is still known."""
    environment = sinfo.does(f"echo $$ > '{sinfo.folder}/pid'\n{script}")
    resources = found({**environment, "SLURM_JOB_ID": "4711"})
    assert resources.slurm == Slurm(job_id="4711")
    (told,) = resources.problems
    assert told.startswith(problem)
    assert not psutil.pid_exists(int((sinfo.folder / "pid").read_text()))
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "61.7"]
    ]


def test_sinfo_that_cannot_run_is_a_problem(sinfo: Sinfo) -> None:
    """A file that is no program is told as such."""
    environment = sinfo.does("")
    (sinfo.folder / "sinfo").write_bytes(b"\x00\x01")
    resources = found(environment)
    (problem,) = resources.problems
    assert resources.slurm is None
    assert problem.startswith("SLURM: sinfo ")
    assert "Exec format error" in problem


@dataclass
class Device:
    """A GPU as the fake driver has it, or ``error`` instead of it."""

    name: str = ""
    mebibytes: int = 0
    error: int = 0
    slices: tuple[Device, ...] = ()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a driver with these devices under NVIDIA's library."""

    def put(*devices: Device) -> None:
        def handle(index: int) -> Device:
            if devices[index].error:
                raise pynvml.NVMLError(devices[index].error)
            return devices[index]

        def slice_of(device: Device, index: int) -> Device:
            if index >= len(device.slices):
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
            return device.slices[index]

        def mig_mode(device: Device) -> tuple[int, int]:
            if not device.slices:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return 1, 1

        fake: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(devices),
            "nvmlDeviceGetHandleByIndex": handle,
            "nvmlDeviceGetName": lambda device: device.name,
            "nvmlDeviceGetMemoryInfo": lambda d: SimpleNamespace(total=d.mebibytes * MIB),
            "nvmlDeviceGetMigMode": mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda _: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": slice_of,
        }
        for name, function in fake.items():
            monkeypatch.setattr(pynvml, name, function)

    return put


def nvml_gpu(kind: str, count: int, memory: float) -> Gpu:
    return Gpu(kind, count, memory, GpuSource.NVML, HOSTNAME)


def test_nvml_counts_gpus_by_type(driver: Callable[..., None]) -> None:
    """GPUs of one type and memory are counted together, with the memory that the driver tells."""
    driver(*[Device("Tesla T4", 15360)] * 4, *[Device("NVIDIA L4", 23034)] * 2)
    resources = found()
    assert resources.gpus == (nvml_gpu("T4", 4, 15.0), nvml_gpu("L4", 2, 22.5))
    assert resources.problems == ()


def test_nvml_knows_slices(driver: Callable[..., None]) -> None:
    """A GPU that is cut into slices is not there as a whole; what is there are the slices."""
    part = Device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9856)
    driver(Device("NVIDIA H100 80GB HBM3", 81559, slices=(part, part)))
    assert found().gpus == (nvml_gpu("H100-1G.10GB", 2, 9.6),)


def test_a_gpu_that_cannot_be_read_is_a_problem(driver: Callable[..., None]) -> None:
    """One GPU that is lost does not hide the others."""
    driver(Device(error=pynvml.NVML_ERROR_GPU_IS_LOST), Device("NVIDIA H100 PCIe", 81559))
    resources = found()
    assert resources.gpus == (nvml_gpu("H100", 1, 79.6),)
    (problem,) = resources.problems
    assert problem.startswith("NVML: GPU 0: ")


@pytest.mark.parametrize(
    ("error", "told"),
    [(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, 0), (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, 1)],
)
def test_no_driver(monkeypatch: pytest.MonkeyPatch, error: int, told: int) -> None:
    """Without NVIDIA's library there is no GPU; a library without its driver is a problem."""

    def fail() -> None:
        raise pynvml.NVMLError(error)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    resources = found()
    assert resources.gpus == ()
    assert len(resources.problems) == told
    assert all(problem.startswith("NVML: ") for problem in resources.problems)


def test_without_the_package_nvml_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU may be there that nobody can ask for."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert found().problems == ("NVML: the package nvidia-ml-py is not installed",)


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What hangs waits for it; it is set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch, hanging: threading.Event) -> None:
    """It is told in time, however often it is asked; one thread at most waits for the driver."""
    waiting = []

    def hang() -> None:
        waiting.append(True)
        hanging.wait(GENEROUS)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", hang)
    for _ in range(2):
        assert found().problems == ("NVML: no answer within 1.5 s",)
    assert len(waiting) == 1


def test_a_disk_that_hangs(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event, tmp_path: Path
) -> None:
    """Encoders that cannot be looked for in time are told; everything else is found."""
    monkeypatch.setattr(
        "semroute_service.detection.detecting.kept_engines",
        lambda home: hanging.wait(GENEROUS) and [],
    )
    resources = found(home=tmp_path)
    assert resources.problems == ("encoders: no answer within 1.5 s",)
    assert resources.cpu_cores > 0


def test_an_unforeseen_error_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is raised; the type is told, and the log has the rest."""
    (tmp_path / "encoders").mkdir(mode=0o755)
    folder = engine_folder(tmp_path, "st-1")
    folder.mkdir()
    (folder / "engine.json").write_text('{"files": {}}')  # it does not say its name
    assert found(home=tmp_path).problems == ("encoders: KeyError",)
    assert "encoders cannot be found out" in caplog.text


def test_keys_are_known_by_their_owner_alone() -> None:
    """Which providers have a key is told, an empty key is none, and no value goes anywhere."""
    environment = {
        "DEEPSEEK_API_KEY": "sk-secret-one",
        "GOOGLE_API_KEY": "sk-secret-two",
        "GROQ_API_KEY": "",
        "MISTRAL_API_KEY": "  ",
        "VLLM_API_KEY": "sk-secret-three",  # a local server's; no cloud provider's
        "PATH": "",
    }
    resources = found(environment)
    assert resources.keys == {"deepseek", "gemini"}
    assert "secret" not in repr(resources)


def test_built_encoders_are_listed(tmp_path: Path) -> None:
    """Engines that are kept whole are listed by name; nothing else below the folder is."""
    for source, name in (("st-1", "bundled"), ("st-2", "BAAI/bge-m3"), ("st-3", "damaged")):
        folder = engine_folder(tmp_path, source)
        folder.mkdir(parents=True)
        files = {"int8/model.onnx": 10} if name == "damaged" else {}
        (folder / "engine.json").write_text(json.dumps({"name": name, "files": files}))
    assert found(home=tmp_path).encoders == ("BAAI/bge-m3", "bundled")
    assert found(home=tmp_path / "nowhere").encoders == ()
    assert found(home=None).encoders == ()


async def test_detection_loads_no_model() -> None:
    """Neither torch nor an encoder's runtime is imported, by the command or below it."""
    code = (
        "import asyncio, sys\n"
        "import semroute_service.cli.detect\n"
        "from semroute_service.detection import detect\n"
        "asyncio.run(detect([], None))\n"
        "heavy = {'torch', 'onnxruntime', 'faiss', 'sklearn', 'sentence_transformers'}\n"
        "print(heavy & sys.modules.keys())"
    )
    ended = await run(sys.executable, "-c", code)
    assert (ended.status, ended.out) == (0, "set()\n"), ended.err
