"""The five profiles that are shipped: whole, and serving the ten tasks on one running server."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from messages import reply
from semroute import RouterClient
from semroute_classifier.utterances import Tier, load_utterances
from semroute_service.profile import DEFAULT_ROUTE, load_profile, load_profiles, load_providers
from semroute_service.recipes import FORMATS, RecipeError, plan
from semroute_service.testing import running_server
from upstream import Status, Stream, Upstream, answer, ask, stream, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute_service.profile import Profile

FOLDER = Path(__file__).parents[1] / "profiles"
TASKS = load_utterances(FOLDER.parent / "utterances").tasks
RANKS = {
    "h100_local": 10,
    "l4_t4_combined": 20,
    "t4_hybrid": 30,
    "cloud_only": 40,
    "development": 90,
}
LOCAL = ("h100_local", "l4_t4_combined", "t4_hybrid", "development")
STRONGEST = {
    "h100_local": "generalist",
    "l4_t4_combined": "claude-sonnet",
    "t4_hybrid": "claude-sonnet",
    "cloud_only": "claude-sonnet",
    "development": "deepseek-v3",
}
SENSITIVE = ("biomedical", "safety")
QUERIES = {task: f"{task} {task} please" for task in TASKS}
"""A query of each task, which the utterances below hold word for word."""
UTTERANCES: dict[str, list[str]] = {
    task: [query, f"{task} now", f"do {task} again", f"more {task}"]
    for task, query in QUERIES.items()
} | {"none": ["the weather of tomorrow", "tell me a joke", "who won the match"]}


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return load_profiles(FOLDER, TASKS, environment={})


def test_the_five(profiles: dict[str, Profile]) -> None:
    """All five load without a warning, in the order in which they are chosen."""
    assert {name: p.hardware.rank for name, p in profiles.items()} == RANKS
    assert len(TASKS) == 10
    for profile in profiles.values():
        assert profile.warnings == ()
        assert profile.description


def test_what_they_require(profiles: dict[str, Profile]) -> None:
    """The tree of choice: GPUs, keys, nothing; none asks for SLURM."""
    required = {n: (p.hardware.gpu_types, p.hardware.cloud_keys) for n, p in profiles.items()}
    assert required == {
        "h100_local": (("H100",), ()),
        "l4_t4_combined": (("L4", "T4"), ()),
        "t4_hybrid": (("T4",), ("deepseek",)),
        "cloud_only": ((), ("any",)),
        "development": ((), ()),
    }
    assert not any(p.hardware.slurm for p in profiles.values())


@pytest.mark.parametrize("name", RANKS)
def test_tiers_are_distinguished(profiles: dict[str, Profile], name: str) -> None:
    """What is easy and what is hard begin with different models, where it is asked."""
    for task in ("code_generation", "biomedical"):
        route = profiles[name].routes[task]
        assert route.primaries(Tier.LOW)[0] != route.primaries(Tier.HIGH)[0]


@pytest.mark.parametrize("name", RANKS)
def test_orchestration_goes_to_the_strongest(profiles: dict[str, Profile], name: str) -> None:
    """Its first candidate, at every tier, is the strongest model of the profile."""
    route = profiles[name].routes["orchestration"]
    assert {route.primaries(tier)[0] for tier in Tier} == {STRONGEST[name]}


@pytest.mark.parametrize("name", LOCAL)
def test_what_is_sensitive_stays(profiles: dict[str, Profile], name: str) -> None:
    """Biomedical and safety queries may not leave, with the reason written down."""
    for task in SENSITIVE:
        route = profiles[name].routes[task]
        assert not route.allow_cloud
        assert not route.fallback_to_cloud
        assert route.local_only_reason


def test_no_cloud_at_all(profiles: dict[str, Profile]) -> None:
    """h100_local names no model outside the building."""
    profile = profiles["h100_local"]
    assert not profile.allow_cloud
    assert all(model.local for model in profile.models.values())


def test_any_key_suffices(profiles: dict[str, Profile]) -> None:
    """Whichever provider's key makes cloud_only fit, it has a model for it behind every row."""
    profile = profiles["cloud_only"]
    cloud = {model.backend.provider.id for model in profile.models.values()}
    assert len(cloud) >= 8
    for route in profile.routes.values():
        chain = (*route.primaries(None), *route.fallback_chain)
        assert {profile.models[name].backend.provider.id for name in chain} == cloud


@pytest.mark.parametrize("name", ["h100_local", "l4_t4_combined", "t4_hybrid"])
def test_every_server_of_theirs_can_be_launched(profiles: dict[str, Profile], name: str) -> None:
    """Every model fits its GPU, and every format can be written."""
    profile = profiles[name]
    made = plan(profile)
    assert made.unserved == ()
    assert all(write(made) for write in FORMATS.values())
    gpus: dict[str, int] = {}
    for job in made.jobs:
        gpus[job.gpu.type] = gpus.get(job.gpu.type, 0) + job.gpu.count
    expected = {
        "h100_local": {"H100": 1},
        "l4_t4_combined": {"L4": 4, "T4": 4},
        "t4_hybrid": {"T4": 6},
    }
    assert gpus == expected[name]


@pytest.mark.parametrize("name", ["cloud_only", "development"])
def test_nothing_of_the_others_is_launched(profiles: dict[str, Profile], name: str) -> None:
    """A profile without servers of its own says so."""
    with pytest.raises(RecipeError, match="there is nothing to launch"):
        plan(profiles[name])


class Stage:
    """All five profiles on one server; every backend and every provider is on loopback."""

    def __init__(self, client: RouterClient, local: Upstream, cloud: Upstream) -> None:
        self.client = client
        self.local = local
        self.cloud = cloud
        self.profiles = {name: load_profile(FOLDER / f"{name}.yaml") for name in RANKS}


def local_models() -> tuple[str, ...]:
    """What the local servers of all five list; the first of it where a profile names none."""
    profiles = load_profiles(FOLDER, environment={}).values()
    return ("any", *(m.id for p in profiles for m in p.models.values() if m.local and m.id))


def spoken(text: str) -> Stream:
    """A whole answer for whoever asks: in Anthropic's own protocol, and then in OpenAI's."""
    return stream(*reply(text).steps, *answer(text).steps)


@contextlib.asynccontextmanager
async def staged(
    monkeypatch: pytest.MonkeyPatch, local: Upstream, cloud: Upstream
) -> AsyncIterator[Stage]:
    """The profiles as they are shipped, but for the providers' addresses; the backends' come
    from the environment, as in earnest."""
    for profile in load_profiles(FOLDER, environment={}).values():
        for backend in profile.backends.values():
            if backend.url_variable:
                monkeypatch.setenv(backend.url_variable, local.url)
    monkeypatch.setenv("OLLAMA_HOST", local.url.removesuffix("/v1"))
    for provider in load_providers().values():
        if not provider.local and provider.key_env:
            monkeypatch.setenv(provider.key_env[0], "key")
    copies = {name: _with_providers_at(cloud.url, name) for name in RANKS}
    async with (
        running_server(profiles=copies, utterances=UTTERANCES, active="development") as server,
        RouterClient(server.address) as client,
    ):
        yield Stage(client, local, cloud)


def _with_providers_at(url: str, name: str) -> dict[str, Any]:
    profile: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    providers = load_providers()
    for model in profile["models"].values():
        provider = model.get("provider", "")
        if provider and not providers[provider].local:
            model["backend"] = model.pop("provider")
            profile.setdefault("backends", {})[provider] = {"provider": provider, "url": url}
    return profile


@pytest.mark.parametrize("name", RANKS)
async def test_each_serves_the_ten_tasks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Every task is decided by its own row or the default one, and answered by a backend."""
    async with (
        upstream(answer("from within"), models=local_models()) as local,
        upstream(spoken("from without")) as cloud,
        staged(monkeypatch, local, cloud) as stage,
    ):
        profile = stage.profiles[name]
        for task, query in QUERIES.items():
            told = await ask(stage.client, query, profile=name)
            assert told.error is None
            decision = told.answer.decision
            assert decision
            assert (decision.profile, decision.classification.task) == (name, task)
            model = profile.models[told.finish.model]
            route = profile.routes.get(task, profile.routes[DEFAULT_ROUTE])
            assert model.name in {m for names in route.tiers.values() for m in names}
            assert told.text == ("from within" if model.local else "from without")
            decided = await stage.client.decide(query, profile=name)
            assert decided.model == route.primaries(None)[0]


@pytest.mark.parametrize("name", LOCAL)
async def test_nothing_sensitive_leaves(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Though every key is set and every local server fails, no provider is sent anything."""
    async with (
        upstream(Status(503), models=local_models()) as local,
        upstream(answer("from without")) as cloud,
        staged(monkeypatch, local, cloud) as stage,
    ):
        profile = stage.profiles[name]
        for task in SENSITIVE:
            decision = await stage.client.decide(QUERIES[task], profile=name)
            outside = [c for c in decision.candidates if not profile.models[c.model].local]
            assert all(c.rule == "allow_cloud" for c in outside)
            await ask(stage.client, QUERIES[task], profile=name)
        assert local.requests
        assert not cloud.requests


async def test_switching_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """While requests come all the time, all five are made active in turn, and none fails."""
    async with (
        upstream(answer("well"), models=local_models()) as local,
        upstream(answer("well")) as cloud,
        staged(monkeypatch, local, cloud) as stage,
    ):
        failed: list[object] = []
        served: dict[str, int] = dict.fromkeys(RANKS, 0)
        stopped = asyncio.Event()

        async def caller(number: int) -> None:
            queries = list(QUERIES.values())
            while not stopped.is_set():
                told = await ask(stage.client, queries[number % len(queries)])
                number += 1
                if told.error or told.text != "well" or not told.answer.decision:
                    failed.append(told.error or told.text)
                else:
                    served[told.answer.decision.profile] += 1

        callers = [asyncio.create_task(caller(number)) for number in range(6)]
        for name in [*RANKS, *RANKS]:
            before = served[name]
            await stage.client.activate_profile(name)
            while served[name] < before + 10 and not failed:
                await asyncio.sleep(0.005)
        stopped.set()
        await asyncio.gather(*callers)
        assert not failed
        assert min(served.values()) >= 20
