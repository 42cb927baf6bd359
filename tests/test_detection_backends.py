"""Detection of backends: who answers is known, who does not costs no time, nobody else is asked.

Every server is a real one on loopback.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from semroute_service.backends.base import BackendError
from semroute_service.backends.http import HttpClient
from semroute_service.decision import ErrorClass
from semroute_service.detection import Gpu, GpuSource, detect
from semroute_service.profile import load_profiles
from semroute_service.testing import write_files
from talkers import CHUNKED, HEAD, Answer, drip, http, models, silence, talkers
from upstream import GENEROUS, nobody

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from semroute_service.detection import BackendProbe, Resources
    from semroute_service.profile import Profile

WITHIN_SECONDS = 2.0
"""The issue's bound on the whole detection, whatever hangs."""
ID = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"
TOO_LATE = "does not answer in time"
NO_SERVER = "does not answer as an OpenAI-compatible server"


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are looked up; no name but this machine's is known, and no name server is
    asked."""
    looked_up: list[str] = []
    look_up = socket.getaddrinfo

    def known(host: str, *rest: Any, **more: Any) -> Any:
        looked_up.append(host)
        if host != "127.0.0.1":
            raise socket.gaierror
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", known)
    return looked_up


HEALTHY = http(200)


def local(*, ids: Sequence[str] = (ID,), **urls: str) -> dict[str, Any]:
    """A profile whose vLLM backends are ``urls``, each of which is to serve ``ids``."""
    return {
        "backends": {name: {"provider": "vllm", "url": url} for name, url in urls.items()},
        "models": {
            f"{name}-{number}": {"backend": name, "id": model}
            for name in urls
            for number, model in enumerate(ids)
        },
        "routes": {"default": {"model": f"{next(iter(urls))}-0"}},
    }


def loaded(folder: Path, **profiles: Mapping[str, Any]) -> list[Profile]:
    return list(load_profiles(write_files(folder / "profiles", profiles)).values())


async def looked(profiles: Sequence[Profile], seconds: float = 1.5) -> Resources:
    start = time.perf_counter()
    resources = await detect(profiles, None, {"PATH": ""}, seconds)
    assert time.perf_counter() - start < WITHIN_SECONDS
    return resources


def by_name(probes: Sequence[BackendProbe]) -> dict[str, tuple[bool, str]]:
    return {probe.backend: (probe.answers, probe.problem) for probe in probes}


BAD: dict[str, tuple[dict[str, Answer], str]] = {
    "silent": ({"/health": silence}, TOO_LATE),
    "silent_list": ({"/health": HEALTHY, "/v1/models": silence}, TOO_LATE),
    "slow_headers": ({"/v1/models": drip(HEAD + b"x: ", b"x", 0.05)}, TOO_LATE),
    "slow_health": ({"/health": drip(HEAD + b"x: ", b"x", 0.05)}, TOO_LATE),
    "slow_body": ({"/v1/models": drip(CHUNKED, b"1\r\n \r\n", 0.05)}, TOO_LATE),
    "endless_body": (
        {"/v1/models": drip(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", 0)},
        NO_SERVER,
    ),
    "not_json": ({"/v1/models": http(200, "<html>hello</html>")}, NO_SERVER),
    "not_http": ({"/v1/models": drip(b"220 mail ready\r\n", b"", 0.05)}, NO_SERVER),
    "other_json": ({"/v1/models": http(200, '{"models": []}')}, NO_SERVER),
    "list_of_text": ({"/v1/models": http(200, '{"data": "abc"}')}, NO_SERVER),
    "deep_json": ({"/v1/models": http(200, "[" * 100_000)}, NO_SERVER),
    "no_list": ({"/health": HEALTHY}, NO_SERVER),
    "unwell": ({"/health": http(503), "/v1/models": models(ID)}, "says that it is not well"),
    "broken_list": ({"/health": HEALTHY, "/v1/models": http(500)}, "says that it is not well"),
    "guarded": (
        {"/health": HEALTHY, "/v1/models": http(401)},
        "refuses the key, or asks for one",
    ),
}
GOOD: dict[str, dict[str, Answer]] = {
    "healthy": {"/health": HEALTHY, "/v1/models": models("other", ID)},
    "without_health": {"/v1/models": models(ID)},
    "guarded_health": {"/health": http(401), "/v1/models": models(ID)},
}


async def test_every_backend_is_known_in_time(full: str, tmp_path: Path) -> None:
    """Refused, silent, full, slow, endless and strange servers are all asked at once, each is
    told for what it is, and those that answer are found among them."""
    async with talkers({**GOOD, **{name: answers for name, (answers, _) in BAD.items()}}) as up:
        urls = {name: talker.url for name, talker in up.items()}
        profile = local(
            **urls, full=full, refused=nobody(), nameless="http://no.such.name.invalid/v1"
        )
        probes = (await looked(loaded(tmp_path, mine=profile))).backends
    assert by_name(probes) == {
        **dict.fromkeys(GOOD, (True, "")),
        **{name: (False, problem) for name, (_, problem) in BAD.items()},
        "full": (False, TOO_LATE),
        "refused": (False, "cannot be reached"),
        "nameless": (False, "has a host name that is not known here"),
    }
    assert not any(probe.missing for probe in probes)


async def test_nothing_answers_at_all(full: str, tmp_path: Path) -> None:
    """With every backend unreachable in its own way, detection still ends in time."""
    async with talkers({f"silent{i}": {"/health": silence} for i in range(20)}) as up:
        urls = {name: talker.url for name, talker in up.items()}
        resources = await looked(loaded(tmp_path, mine=local(**urls, full=full, refused=nobody())))
    assert len(resources.backends) == 22
    assert not any(probe.answers for probe in resources.backends)


@pytest.mark.parametrize(
    ("bad", "error_class"),
    [
        ("silent_list", ErrorClass.PROVIDER_TIMEOUT),
        ("slow_headers", ErrorClass.PROVIDER_TIMEOUT),
        ("slow_body", ErrorClass.PROVIDER_TIMEOUT),
        ("endless_body", ErrorClass.PROVIDER_PROTOCOL),
        ("deep_json", ErrorClass.PROVIDER_PROTOCOL),
    ],
)
async def test_a_model_list_is_bounded(tmp_path: Path, bad: str, error_class: ErrorClass) -> None:
    """Whoever asks for one gets it, or an error, within the time and the memory it may take."""
    http = HttpClient()
    async with talkers({"it": BAD[bad][0]}) as up, asyncio.timeout(GENEROUS):
        (profile,) = loaded(tmp_path, mine=local(it=up["it"].url))
        with pytest.raises(BackendError) as raised:
            await http.get_models(profile.backends["it"], 0.5)
    await http.close()
    assert raised.value.error_class is error_class


async def test_health_is_asked_first(tmp_path: Path) -> None:
    """vLLM's health endpoint stands beside /v1; a server that is not well is asked no further."""
    answers = {"well": GOOD["healthy"], "unwell": BAD["unwell"][0]}
    async with talkers(answers) as up:
        await looked(loaded(tmp_path, mine=local(well=up["well"].url, unwell=up["unwell"].url)))
    assert up["well"].asked == ["/health", "/v1/models"]
    assert up["unwell"].asked == ["/health"]


async def test_a_missing_model_is_named(tmp_path: Path) -> None:
    """A backend that answers and does not list what is declared there answers, and says so."""
    ids = (ID, "llama3.2", "llama3.2:1b", "llama3.2")
    async with talkers({"it": {"/v1/models": models("other", "llama3.2:latest")}}) as up:
        resources = await looked(loaded(tmp_path, mine=local(it=up["it"].url, ids=ids)))
    (probe,) = resources.backends
    assert probe.answers
    assert probe.models == ("other", "llama3.2:latest")
    assert probe.missing == (ID, "llama3.2:1b")


async def test_a_model_without_an_id_is_never_missing(tmp_path: Path) -> None:
    """It stands for the first that the backend lists."""
    profile = local(it="http://127.0.0.1:1/v1")
    async with talkers({"it": {"/v1/models": models()}}) as up:
        profile["backends"]["it"]["url"] = up["it"].url
        profile["models"] = {"it-0": {"backend": "it"}}
        (probe,) = (await looked(loaded(tmp_path, mine=profile))).backends
    assert (probe.answers, probe.models, probe.missing) == (True, (), ())


async def test_odd_names_are_not_passed_on(tmp_path: Path) -> None:
    """What a terminal or the wire could not carry, and what is far too long, is left out."""
    odd = ("\x1b[31mred", "\ud800", "x" * 5000)
    async with talkers({"it": {"/v1/models": models(*odd, *map(str, range(5000)), ID)}}) as up:
        (probe,) = (await looked(loaded(tmp_path, mine=local(it=up["it"].url)))).backends
    assert probe.models == tuple(map(str, range(200)))
    assert probe.missing == ()


async def test_an_address_is_asked_once(tmp_path: Path) -> None:
    """Backends of several profiles at one address are asked together, each by what it declares."""
    async with talkers({"it": GOOD["healthy"]}) as up:
        one, two = local(a=up["it"].url), local(b=up["it"].url, ids=("absent",))
        probes = (await looked(loaded(tmp_path, one=one, two=two))).backends
    assert up["it"].asked == ["/health", "/v1/models"]
    told = [(probe.profile, probe.backend, probe.answers, probe.missing) for probe in probes]
    assert told == [("one", "a", True, ()), ("two", "b", True, ("absent",))]


async def test_a_public_host_is_never_contacted(tmp_path: Path, hosts: list[str]) -> None:
    """Clouds are judged by their keys, under whatever provider their host is declared; a cloud
    provider's backend with an address of its own is asked, and the built-in echo is not."""
    async with talkers({"proxy": {"/v1/models": models(ID)}}) as up:
        backends = {
            "proxy": {"provider": "openai", "url": up["proxy"].url},
            "beta": {"provider": "deepseek", "url": "https://api.deepseek.com/beta"},
            "region": {"provider": "openai", "url": "https://eu.api.openai.com/v1"},
            "dot": {"provider": "openai_compatible", "url": "https://API.openai.com./v1"},
        }
        served = {name: {"backend": name, "id": ID} for name in backends}
        clouds = {name: {"provider": name, "id": ID} for name in ("deepseek", "openai", "gemini")}
        profile = {
            "backends": backends,
            "models": {**served, **clouds, "echo": {"provider": "echo"}},
            "routes": {"default": {"model": "echo"}},
            "governance": {"allow_cloud": True},
        }
        (probe,) = (await looked(loaded(tmp_path, mine=profile))).backends
    assert (probe.backend, probe.local, probe.answers) == ("proxy", False, True)
    assert set(hosts) == {"127.0.0.1"}
    assert up["proxy"].asked == ["/v1/models"]


async def test_a_declared_gpu_counts_where_its_backend_answers(tmp_path: Path) -> None:
    """What a backend that answers is declared to run on is there, once for each address."""
    async with talkers({"up": GOOD["healthy"]}) as up:
        profile = local(up=up["up"].url, down=nobody())
        profile["backends"]["up"]["gpu"] = {"type": "Tesla T4", "count": 2}
        profile["backends"]["down"]["gpu"] = {"type": "H100"}
        twin = local(other=up["up"].url)
        twin["backends"]["other"]["gpu"] = {"type": "Tesla T4", "count": 2}
        further = local(more=up["up"].url)
        further["backends"]["more"]["gpu"] = {"type": "A100", "memory_gb": 40}
        profiles = loaded(tmp_path, further=further, profile=profile, twin=twin)
        gpus = (await looked(profiles)).gpus
    assert gpus == (
        Gpu("A100", 1, 40.0, GpuSource.BACKEND, "more"),
        Gpu("T4", 2, 16.0, GpuSource.BACKEND, "up"),
    )


async def test_a_shared_gpu_counts_once(tmp_path: Path) -> None:
    """Backends at two addresses that name the same GPU stand on one."""
    async with talkers({"one": GOOD["healthy"], "other": GOOD["healthy"]}) as up:
        profile = local(one=up["one"].url, other=up["other"].url)
        for backend in profile["backends"].values():
            backend["gpu"] = {"type": "H100", "name": "node-7"}
        gpus = (await looked(loaded(tmp_path, mine=profile))).gpus
    assert [(gpu.type, gpu.count) for gpu in gpus] == [("H100", 1)]


def test_a_name_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the end of the event loop, and so of a command, waits for a name server."""
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        released.wait(GENEROUS)
        raise socket.gaierror

    profiles = loaded(tmp_path, mine=local(far="http://somewhere.invalid:8000/v1"))
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.perf_counter()
    try:
        (probe,) = asyncio.run(detect(profiles, None, {"PATH": ""})).backends
        assert time.perf_counter() - start < WITHIN_SECONDS
    finally:
        released.set()
    assert probe.problem == TOO_LATE
