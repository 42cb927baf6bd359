"""``semroute detect`` and DetectResources: what there is is told, and no key."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import grpc

from processes import run
from semroute.v1 import profile_pb2, profile_pb2_grpc
from semroute_service.testing import ECHO_PROFILE, running_server, write_files
from talkers import http, models, talkers
from upstream import nobody

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from processes import Ended
    from semroute_service.testing import RunningServer

KEYS = {"DEEPSEEK_API_KEY": "sk-secret-deepseek", "VLLM_API_KEY": "sk-secret-vllm"}
GENEROUS = 60.0
"""Seconds, against hanging only."""


def served(url: str, **backend: Any) -> dict[str, Any]:
    """A profile that is chosen where a vLLM server at ``url`` runs on an L4."""
    return {
        "hardware": {"rank": 1, "gpu_types": ["L4"], "required_cloud_apis": ["deepseek"]},
        "backends": {"coder": {"provider": "vllm", "url": url, **backend}},
        "models": {
            "small": {"backend": "coder", "id": "small-id"},
            "large": {"backend": "coder", "id": "large-id"},
        },
        "routes": {"default": {"model": "small"}},
    }


def written(folder: Path, **profiles: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a machine with these profiles, a job, a SLURM with T4s, and keys."""
    write_files(folder / "profiles", profiles)
    program = folder / "bin" / "sinfo"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'gpu|up|idle|5|gpu:tesla_t4:2(S:0-1)'\n")
    program.chmod(0o755)
    return {
        **os.environ,
        **KEYS,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_PARTITION": "gpu",
        "SEMROUTE_PROFILES": str(folder / "profiles"),
        "SEMROUTE_HOME": str(folder / "home"),
        "COLUMNS": "160",
    }


async def command(environment: Mapping[str, str], *arguments: str) -> Ended:
    ended = await run(
        sys.executable, "-m", "semroute_service.cli", "detect", *arguments, env=environment
    )
    assert "secret" not in ended.out + ended.err
    return ended


async def test_people_are_told(tmp_path: Path) -> None:
    """One page has the machine, the GPUs, SLURM, the keys' owners, the backends and the fits."""
    up = {"/health": http(200), "/v1/models": models("small-id")}
    async with talkers({"it": up}) as server:
        url, gone = server["it"].url, nobody()
        environment = written(
            tmp_path,
            cluster=served(url, gpu={"type": "NVIDIA L4", "count": 2}),
            lost={**served(gone), "hardware": {"rank": 0, "gpu_types": ["H100"]}},
        )
        ended = await command(environment)
    assert (ended.status, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    for line in (
        "GPU 10 x T4, 16 GB each, in SLURM's partition gpu",
        "GPU 2 x L4, 24 GB each, declared for the backend coder",
        "SLURM partitions gpu; job 4711 in gpu",
        "keys deepseek",
        "encoders none is built yet",
        f"cluster coder {url} serves small-id; NOT large-id",
        f"lost coder {gone} cannot be reached",
        "cluster yes met: a GPU of type L4, the key of DeepSeek (DEEPSEEK_API_KEY)",
        "lost no missing: a GPU of type H100",
        "recommended: cluster",
    ):
        assert line in lines
    assert lines[0].startswith("machine ")


async def test_programs_are_told(tmp_path: Path) -> None:
    """With --json one object has everything, and the fits in the order of choice."""
    async with talkers({"it": {"/v1/models": models("small-id")}}) as server:
        environment = written(tmp_path, cluster=served(server["it"].url), echo=ECHO_PROFILE)
        ended = await command(environment, "--json")
    told = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert told["gpus"] == [
        {"type": "T4", "count": 10, "memory_gb": 16.0, "source": "slurm", "place": "gpu"}
    ]
    assert told["slurm"] == {"partitions": ["gpu"], "job_id": "4711", "job_partition": "gpu"}
    assert (told["keys"], told["encoders"], told["problems"]) == (["deepseek"], [], [])
    (probe,) = told["backends"]
    assert (probe["backend"], probe["answers"], probe["missing"]) == ("coder", True, ["large-id"])
    assert told["cpu_cores"] > 0
    assert told["memory_gb"] > 0
    assert 0 < told["seconds"] < 2
    assert [(fit["profile"], fit["fits"]) for fit in told["profiles"]] == [
        ("cluster", False),
        ("echo", True),
    ]
    assert told["profiles"][0]["requirements"] == [
        {"what": "a GPU of type L4", "met": False},
        {"what": "the key of DeepSeek (DEEPSEEK_API_KEY)", "met": True},
    ]
    assert told["recommended"] is None  # echo fits, and has no rank


async def test_a_wrong_profile_is_refused(tmp_path: Path) -> None:
    """A mistake in a profile is told with its file, as every command tells it."""
    ended = await command(written(tmp_path, wrong={"models": {}, "routes": {}}))
    assert (ended.status, ended.out) == (1, "")
    assert "profiles/wrong.yaml:" in ended.err


async def detected(server: RunningServer) -> profile_pb2.DetectResourcesResponse:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = profile_pb2_grpc.ProfileServiceStub(channel)
        answer = await stub.DetectResources(profile_pb2.DetectResourcesRequest(), timeout=GENEROUS)
        assert isinstance(answer, profile_pb2.DetectResourcesResponse)
        return answer


async def test_a_server_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DetectResources carries every part of it, and which profile fits best."""
    up = {"/health": http(200), "/v1/models": models("small-id")}
    async with talkers({"it": up}) as upstream:
        cluster = served(upstream["it"].url, gpu={"type": "L4", "memory_gb": 22.5})
        lost = {**served(nobody()), "hardware": {"gpu_types": ["H100"]}}
        for name, value in written(tmp_path).items():
            monkeypatch.setenv(name, value)
        async with running_server(profiles={"cluster": cluster, "lost": lost}, active="lost") as it:
            answer = await detected(it)
    assert "secret" not in str(answer)
    resources = answer.resources
    assert [(g.type, g.count, g.memory_gb, g.source, g.place) for g in resources.gpus] == [
        ("T4", 10, 16.0, profile_pb2.GPU_SOURCE_SLURM, "gpu"),
        ("L4", 1, 22.5, profile_pb2.GPU_SOURCE_BACKEND, "coder"),
    ]
    assert (list(resources.slurm.partitions), resources.slurm.job_id) == (["gpu"], "4711")
    assert resources.slurm.job_partition == "gpu"
    assert list(resources.providers_with_key) == ["deepseek"]
    there, gone = resources.backends
    assert (there.profile, there.backend, there.answers) == ("cluster", "coder", True)
    assert (list(there.models), list(there.missing_models)) == (["small-id"], ["large-id"])
    assert (gone.answers, gone.problem) == (False, "cannot be reached")
    assert there.url == upstream["it"].url
    assert resources.cpu_cores > 0
    assert resources.memory_gb > 0
    assert 0 < resources.elapsed.ToMilliseconds() < 2000
    assert not resources.problems
    assert answer.recommended == "cluster"
    assert [(fit.profile, fit.fits) for fit in answer.fits] == [("cluster", True), ("lost", False)]
    assert [(r.what, r.met) for r in answer.fits[1].requirements] == [("a GPU of type H100", False)]


async def test_what_is_not_there_is_absent() -> None:
    """Without SLURM there is no such message; a server without profiles that fit names none."""
    async with running_server() as server:
        answer = await detected(server)
    assert not answer.resources.HasField("slurm")
    assert answer.recommended == ""


async def test_callers_at_once_share_one_detection() -> None:
    """Each backend is asked once for all who ask at the same moment, and again for the next; one
    who leaves takes nothing from the others."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await may_answer.wait()
        await models("small-id")(writer)

    async with (
        talkers({"it": {"/v1/models": slowly}}) as upstream,
        running_server(profile=served(upstream["it"].url), wait=False) as server,
    ):
        may_answer.set()  # what the server itself asks at its start
        await server.server.ready()
        asked.clear()
        may_answer.clear()
        upstream["it"].asked.clear()
        leaves = asyncio.create_task(detected(server))
        await asyncio.wait_for(asked.wait(), GENEROUS)
        stay = [asyncio.create_task(detected(server)) for _ in range(3)]
        leaves.cancel()
        async with asyncio.timeout(GENEROUS):
            while server.server._calls != len(stay):  # they are there, and the first is gone
                await asyncio.sleep(0.01)
        may_answer.set()
        answers = await asyncio.gather(*stay)
        assert upstream["it"].asked.count("/v1/models") == 1
        assert all(answer.resources.backends[0].answers for answer in answers)
        await detected(server)
        assert upstream["it"].asked.count("/v1/models") == 2
