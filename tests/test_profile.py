"""Profiles: what the words of a file mean, and how every mistake in one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from semroute_classifier.documents import ConfigError
from semroute_classifier.utterances import Tier, load_utterances
from semroute_service.errors import UnknownProfileError
from semroute_service.profile import (
    Price,
    Profile,
    ProfileStore,
    load_profile,
    load_profiles,
    load_providers,
)
from semroute_service.query import Capability, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semroute_classifier.documents import Problem

ROOT = Path(__file__).parents[1]
GOOD = """\
name: p
backends:
  gpu: {provider: vllm, url: "http://gpu:8000/v1"}
models:
  big: {backend: gpu, id: big-1}
  sky: {provider: openai, id: sky-1, price: {input: 1, output: 2}}
routes:
  biomedical: {model: big}
  default: {tiers: {low: [big], high: [sky, big]}}
fallback_chain: [sky]
governance: {allow_cloud: true}
"""


def load(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> Profile:
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path, environment=environment or {})


def problems(
    folder: Path, text: str, environment: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environment)
    assert {problem.file for problem in caught.value.problems} == {str(folder / "p.yaml")}
    return caught.value.problems


def changed(old: str, new: str) -> str:
    """GOOD with one thing changed; what stands for nothing is added at the end."""
    if not old:
        return GOOD + new
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


UNKNOWN_KEYS = [
    ("", "behaviour: {}", 12, "behaviour", 'unknown key; did you mean "behavior"?'),
    ("gpu: {", "gpu: {urll: x, ", 3, "backends.gpu.urll", 'did you mean "url"?'),
    ("big: {", "big: {contxt: 5, ", 5, "models.big.contxt", 'did you mean "context"?'),
    ("{input", "{inptu: 1, input", 6, "models.sky.price.inptu", 'did you mean "input"?'),
    ("{model", "{modle: x, model", 8, "routes.biomedical.modle", 'did you mean "model"?'),
    ("{low", "{hihg: [], low", 9, "routes.default.tiers.hihg", 'did you mean "high"?'),
    ("{allow", "{regoin: eu, allow", 11, "governance.regoin", 'did you mean "region"?'),
    ("", "behavior: {max_retires: 1}", 12, "behavior.max_retires", '"max_retries"?'),
    ("", "cost: {monthly: 1}", 12, "cost.monthly", 'did you mean "monthly_limit"?'),
    ("", "classifier: {encodr: auto}", 12, "classifier.encodr", 'did you mean "encoder"?'),
    ("", "hardware: {gpu_type: [T4]}", 12, "hardware.gpu_type", 'did you mean "gpu_types"?'),
]
WRONG_TYPES = [
    ("name: p", "name: p\nversion: 1.0", 2, "version", "must be text, not 1.0; put it in quotes"),
    ("[sky]\n", "sky\n", 10, "fallback_chain", "must be a list, not 'sky'"),
    ("{model: big}", "big", 8, "routes.biomedical", "must hold keys and values, not 'big'"),
    ("id: big-1", "id: 7", 5, "models.big.id", "must be text, not 7"),
    ("id: big-1", "context: -1", 5, "models.big.context", "must be greater than 0, not -1"),
    ("id: big-1", "context: 8k", 5, "models.big.context", "a whole number, not '8k'"),
    ("id: big-1", "kind: audio", 5, "models.big.kind", "'chat', 'embedding' or 'guard'"),
    ("id: big-1", "capabilities: [fly]", 5, "models.big.capabilities[0]", "'tools'"),
    ("id: big-1", "capabilities: tools", 5, "models.big.capabilities", "must be a list"),
    ("input: 1", "input: -1", 6, "models.sky.price.input", "greater than or equal to 0"),
    ("input: 1, ", "", 6, "models.sky.price.input", "is required"),
    ("cloud: true", "cloud: yeah", 11, "governance.allow_cloud", "true or false, not 'yeah'"),
    ("{model", "{temperature: 3, model", 8, "routes.biomedical.temperature", "equal to 2, not 3"),
    ("gpu: {provider: vllm, ", "gpu: {", 3, "backends.gpu.provider", "is required"),
    ("gpu: {", "gpu: {locality: local, ", 3, "backends.gpu.locality", "'cloud'"),
    ("gpu: {", "gpu: {clearance: top, ", 3, "backends.gpu.clearance", "'restricted'"),
    ("", "cost: {monthly_limit: .inf}", 12, "cost.monthly_limit", "finite number"),
    ("", "behavior: {timeout_seconds: 0}", 12, "behavior.timeout_seconds", "greater than 0"),
]
WRONG_NAMES = [
    ("name: p", "name: q", 1, "name", 'is "q" but the file is named "p"'),
    ("model: big", "model: bgi", 8, "routes.biomedical.model", 'did you mean "big"?'),
    ("[sky, big]", "[sky, bgi]", 9, "routes.default.tiers.high[1]", 'did you mean "big"?'),
    ("[sky]\n", "[skyy]\n", 10, "fallback_chain[0]", 'no model "skyy"; did you mean "sky"?'),
    ("model: big", "model: big, fallback_chain: [fog]", 8, "routes.biomedical.fallback_chain[0]",
     'there is no model "fog"; known: big, sky'),
    ("backend: gpu", "backend: gup", 5, "models.big.backend", 'declared; did you mean "gpu"?'),
    ("openai", "opanai", 6, "models.sky.provider", 'no provider "opanai"; did you mean "openai"?'),
    ("provider: vllm", "provider: vlm", 3, "backends.gpu.provider", 'did you mean "vllm"?'),
    ("backend: gpu, id", "id", 5, "models.big", "a backend or a provider, one of the two"),
    ("backend: gpu", "backend: gpu, provider: vllm", 5, "models.big", "one of the two"),
    ("backend: gpu", "provider: vllm", 5, "models.big.provider", "has none of its own"),
    ('v1"}', 'v1"}\n  openai: {provider: openai}', 7, "models.sky.provider",
     "a backend has that name too; write backend: openai"),
    ("id: sky-1, ", "", 6, "models.sky.id", "the name that the provider knows"),
    ("  biomedical:", "  Bio-Medical:", 8, "routes.Bio-Medical", "is no task name"),
    ("  biomedical:", "  none:", 8, "routes.none", "is no task name"),
]  # fmt: skip
WRONG_ROUTES = [
    ("  default: {tiers: {low: [big], high: [sky, big]}}\n", "", 7, "routes", "default: {model:"),
    ("{model: big}", "{}", 8, "routes.biomedical", "a model or tiers, one of the two"),
    ("{low: [big], high: [sky, big]}", "{}", 9, "routes.default.tiers", "low, medium or high"),
    ("model: big", "model: big, tiers: {low: [big]}", 8, "routes.biomedical", "one of the two"),
    ("{model: big}", "{model: sky, allow_cloud: false}", 8, "routes.biomedical",
     "can never be served at tier low: sky would leave the building"),
    ("{model: big}", "{model: big, allow_cloud: false, fallback_to_cloud: true}", 8,
     "routes.biomedical.fallback_to_cloud", "widens what the row's allow_cloud allows"),
    ("", "behavior: {enable_caching: true}", 12, "behavior.enable_caching", "say false"),
]  # fmt: skip
WRONG_ADDRESSES = [
    ("vllm", "ftp://gpu:8000", "is no http or https address, such as http://"),
    ("vllm", "gpu:8000", "is no http or https address"),
    ("vllm", "http://gpu:port/v1", "is no http or https address"),
    ("vllm", "http://[::1/v1", "is no http or https address"),
    ("vllm", "http://gpu/v1?key=1", "must end with its path"),
    ("vllm", "ftp://ann:pass@gpu/v1", "must not hold a user or a password"),
    ("vllm", "http://pass@gpu/v1", "keys come from the environment"),
    ("vllm", "http://${GPU_HOST}/v1", "the environment variable GPU_HOST is not set"),
    ("vllm", "http://$GPU_HOST/v1", "write ${NAME} or ${NAME:-default}"),
    ("vllm", "http://${GPU-HOST}/v1", "write ${NAME} or ${NAME:-default}"),
    ("openai", "http://example.org/v1", "OpenAI gets its key over https or loopback only"),
    ("echo", "http://localhost/v1", "the built-in echo has no url"),
]
WRONG = [*UNKNOWN_KEYS, *WRONG_TYPES, *WRONG_NAMES, *WRONG_ROUTES]


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"), WRONG, ids=[f"{w[3]}: {w[1]}" for w in WRONG]
)
def test_wrong(tmp_path: Path, old: str, new: str, line: int, key: str, says: str) -> None:
    """One mistake gives one problem, with its line, its key and what would be right."""
    (problem,) = problems(tmp_path, changed(old, new))
    assert (problem.line, problem.key) == (line, key)
    assert says in problem.message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("", 1, ""),
        ("name: p\n\tmodels: {}\n", 2, ""),
        (GOOD + "routes: {default: {model: sky}}\n", 12, "routes"),
        (GOOD.replace("{model: big}", "&b {model: big}") + "cost: *b\n", 12, "cost"),
        ("models: {}\nroutes: {default: {model: a}}\n", 1, "models"),
        ("\0", 0, ""),
    ],
    ids=["empty", "tab", "twice", "anchor", "no models", "binary"],
)
def test_no_profile_at_all(tmp_path: Path, text: str, line: int, key: str) -> None:
    """A file that is not even a profile is refused with its place as well."""
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.key) == (line, key)


def at_address(provider: str, url: str) -> str:
    """A profile with one backend ``b``; an empty ``url`` is not written."""
    written = f', url: "{url}"' if url else ""
    return (
        f"backends:\n  b: {{provider: {provider}{written}}}\n"
        "models: {m: {backend: b, id: x}}\n"
        "routes: {default: {model: m}}\ngovernance: {allow_cloud: true}\n"
    )


@pytest.mark.parametrize(("provider", "url", "says"), WRONG_ADDRESSES)
def test_wrong_address(tmp_path: Path, provider: str, url: str, says: str) -> None:
    """An address that cannot be used is told where it stands, and no secret in it is repeated."""
    (problem,) = problems(tmp_path, at_address(provider, url))
    assert (problem.line, problem.key) == (2, "backends.b.url")
    assert says in problem.message
    assert "pass" not in problem.message.replace("password", "")


@pytest.mark.parametrize(
    ("provider", "url", "environment", "expected"),
    [
        ("vllm", "http://gpu:8000/v1/", {}, "http://gpu:8000/v1"),
        ("vllm", "http://${H:-gpu}:1", {}, "http://gpu:1"),
        ("vllm", "http://${H:-gpu}:1", {"H": ""}, "http://gpu:1"),
        ("vllm", "http://${H:-gpu}:${P}", {"H": "t4", "P": "8"}, "http://t4:8"),
        ("openai", "", {}, "https://api.openai.com/v1"),
        ("openai", "https://llm.example.org/v1", {}, "https://llm.example.org/v1"),
        ("openai", "http://127.0.0.1:9/v1", {}, "http://127.0.0.1:9/v1"),
        ("openai", "http://[::1]:9/v1", {}, "http://[::1]:9/v1"),
        ("openai", "${URL:-}", {}, "https://api.openai.com/v1"),
        ("ollama", "", {}, "http://127.0.0.1:11434/v1"),
        ("ollama", "", {"OLLAMA_HOST": "box"}, "http://box:11434/v1"),
        ("ollama", "", {"OLLAMA_HOST": " box:9 "}, "http://box:9/v1"),
        ("ollama", "", {"OLLAMA_HOST": ":9"}, "http://127.0.0.1:9/v1"),
        ("ollama", "", {"OLLAMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11434/v1"),
        ("ollama", "", {"OLLAMA_HOST": "[::]:9"}, "http://127.0.0.1:9/v1"),
        ("ollama", "", {"OLLAMA_HOST": "[fe80::1]"}, "http://[fe80::1]:11434/v1"),
        ("ollama", "", {"OLLAMA_HOST": "http://box:9/"}, "http://box:9/v1"),
        ("ollama", "", {"OLLAMA_HOST": "https://box"}, "https://box/v1"),
        ("ollama", "", {"OLLAMA_HOST": "https://box/llm"}, "https://box/llm/v1"),
        ("ollama", "", {"OLLAMA_HOST": "http://box:9/v1"}, "http://box:9/v1"),
        ("ollama", "http://other:1/v1", {"OLLAMA_HOST": "box"}, "http://other:1/v1"),
    ],
)
def test_addresses(
    tmp_path: Path, provider: str, url: str, environment: dict[str, str], expected: str
) -> None:
    """A written address stands, with its variables; OLLAMA_HOST is read as Ollama reads it."""
    profile = load(tmp_path, at_address(provider, url), environment)
    assert profile.models["m"].backend.url == expected


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    """Where the address comes from the environment, the message says from which variable."""
    found = problems(tmp_path, at_address("ollama", ""), {"OLLAMA_HOST": "box:port"})
    assert [str(problem).endswith("(OLLAMA_HOST)") for problem in found] == [True]


def test_several_at_once(tmp_path: Path) -> None:
    """All mistakes of a file are told together, unknown keys among themselves."""
    text = changed("model: big", "model: bgi").replace("[sky, big]", "[fog]")
    text = text.replace("provider: openai", "provider: opanai").replace("name: p", "name: q")
    assert [problem.line for problem in problems(tmp_path, text)] == [1, 6, 8, 9]
    unknown = GOOD.replace("gpu: {", "gpu: {a: 1, ").replace("{low", "{b: 1, low")
    assert {problem.key for problem in problems(tmp_path, unknown)} == {
        "backends.gpu.a",
        "routes.default.tiers.b",
    }


def test_several_files_at_once(tmp_path: Path) -> None:
    """The mistakes of all files of a folder come together."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("name: p", "name: b"))
    with pytest.raises(ConfigError) as caught:
        load_profiles(tmp_path)
    assert [Path(problem.file).stem for problem in caught.value.problems] == ["a", "c"]
    with pytest.raises(ConfigError, match="holds no profile"):
        load_profiles(ROOT / "proto")


def test_shipped() -> None:
    """Every shipped profile loads without a warning, and its rows name models that it has."""
    tasks = load_utterances(ROOT / "utterances").tasks
    profiles = load_profiles(ROOT / "profiles", tasks, environment={})
    assert {"development", "cloud_only", "t4_hybrid"} <= set(profiles)
    for profile in profiles.values():
        assert profile.description
        assert profile.warnings == ()
        for route in profile.routes.values():
            named = {name for names in route.tiers.values() for name in names}
            assert named | set(route.fallback_chain) <= set(profile.models)


def test_providers() -> None:
    """Every provider of the catalogue has what its kind needs."""
    for name, provider in load_providers().items():
        assert provider.id == name
        if not provider.local and provider.protocol != "litellm":  # which knows both itself
            assert provider.url.startswith("https://")
            assert provider.key_env


def test_tiers(tmp_path: Path) -> None:
    """A tier that a row lacks takes the next higher, or the highest; no tier counts as MEDIUM."""
    route = load(tmp_path, GOOD).route("code_generation")
    assert route.task == "default"
    assert route.primaries(Tier.LOW) == ("big",)
    assert route.primaries(Tier.MEDIUM) == ("sky", "big")
    assert route.primaries(None) == ("sky", "big")
    low_only = load(tmp_path, changed("{low: [big], high: [sky, big]}", "{low: [big]}"))
    assert low_only.route(None).primaries(Tier.HIGH) == ("big",)


def test_candidates(tmp_path: Path) -> None:
    """Behind the primaries stands the chain, without those that are primaries already."""

    def names(profile: Profile, task: str) -> list[tuple[str, bool]]:
        found = profile.candidates(profile.route(task), Tier.HIGH)
        return [(model.name, fallback) for model, fallback in found]

    good = load(tmp_path, GOOD)
    assert names(good, "biomedical") == [("big", False), ("sky", True)]
    assert names(good, "other") == [("sky", False), ("big", False)]
    own = load(tmp_path, changed("model: big", "model: big, fallback_chain: []"))
    assert names(own, "biomedical") == [("big", False)]


def test_prefer_local(tmp_path: Path) -> None:
    """It orders the fallbacks, local ones first, and never what the row itself lists."""
    text = changed("[sky]\n", "[sky, big, e]\n") + "behavior: {prefer_local: true}\n"
    profile = load(tmp_path, text.replace("models:", "models:\n  e: {provider: echo}"))
    found = profile.candidates(profile.route(None), Tier.HIGH)
    assert [model.name for model, _ in found] == ["sky", "big", "e"]
    found = profile.candidates(profile.route("biomedical"), Tier.HIGH)
    assert [model.name for model, _ in found] == ["big", "e", "sky"]


@pytest.mark.parametrize(
    ("row", "cloud", "fallback"),
    [
        ("", True, True),
        (", allow_cloud: false", False, False),
        (", allow_cloud: true", True, True),
        (", fallback_to_cloud: false", True, False),
    ],
)
def test_cloud(tmp_path: Path, row: str, cloud: bool, fallback: bool) -> None:
    """A row inherits allow_cloud, and fallback_to_cloud follows the row's allow_cloud."""
    route = load(tmp_path, changed("model: big", f"model: big{row}")).route("biomedical")
    assert (route.allow_cloud, route.fallback_to_cloud) == (cloud, fallback)


def test_absent_means_no_cloud(tmp_path: Path) -> None:
    """Without a word on it nothing leaves the building, and no row may say otherwise."""
    silent = changed("governance: {allow_cloud: true}\n", "")
    profile = load(tmp_path, silent)
    assert not profile.allow_cloud
    assert not profile.route("biomedical").allow_cloud
    (warning,) = profile.warnings
    assert ":9: routes.default: sky is never admitted here" in warning
    (problem,) = problems(tmp_path, silent.replace("model: big", "model: big, allow_cloud: true"))
    assert (problem.line, problem.key) == (8, "routes.biomedical.allow_cloud")
    assert "widens what governance.allow_cloud allows, which is false" in problem.message


def test_a_limit_needs_a_price(tmp_path: Path) -> None:
    """Where the cost is limited, a model without a price is never admitted, and that is told."""
    limited = changed(", price: {input: 1, output: 2}", "") + "cost: {monthly_limit: 5}\n"
    (warning,) = load(tmp_path, limited).warnings
    assert "sky is never admitted here: it has no price" in warning
    (problem,) = problems(tmp_path, limited.replace("[sky, big]", "[sky]"))
    assert problem.key == "routes.default"
    assert "tier high: sky has no price" in problem.message


def test_a_row_without_utterances_is_a_warning(tmp_path: Path) -> None:
    """A row for a task that nothing teaches is served, with a warning."""
    (tmp_path / "p.yaml").write_text(GOOD)
    (warning,) = load_profile(tmp_path / "p.yaml", ["biomedicine"]).warnings
    assert 'no utterances teach this task; did you mean "biomedicine"?' in warning


def test_where_models_stand(tmp_path: Path) -> None:
    """Locality, region, clearance, capabilities and money are what file and catalogue say."""
    text = changed("gpu: {", "gpu: {locality: cloud, region: us, clearance: internal, ")
    text = text.replace(
        "models:", "models:\n  e: {provider: echo}\n  v: {provider: ollama, kind: embedding}"
    )
    text = text.replace(
        "{allow_cloud", "{region: eu-west, default_sensitivity: internal, allow_cloud"
    )
    profile = load(tmp_path, text + "cost: {max_per_request: 0.1, monthly_limit: 50}\n")
    big, sky, e, v = (profile.models[name] for name in ("big", "sky", "e", "v"))
    assert (big.local, big.backend.region, big.backend.clearance) == (
        False,
        "us",
        Sensitivity.INTERNAL,
    )
    assert (sky.local, sky.backend.region, sky.backend.clearance) == (False, "", Sensitivity.PUBLIC)
    assert (e.local, e.backend.region, e.backend.clearance) == (
        True,
        "eu-west",
        Sensitivity.RESTRICTED,
    )
    assert Capability.CHAT in sky.capabilities
    assert v.capabilities == {Capability.EMBEDDING}
    assert (e.effective_price, big.effective_price) == (Price(0, 0), None)
    assert sky.effective_price == Price(1_000_000_000, 2_000_000_000)
    assert sky.effective_price.cost(1, 1) == 3_000
    assert profile.default_sensitivity is Sensitivity.INTERNAL
    assert profile.limits.max_per_request == 100_000_000
    assert profile.limits.monthly == 50_000_000_000


def test_revision(tmp_path: Path) -> None:
    """The revision names the content: not its comments, and the same in every process."""
    code = (
        "import sys, pathlib; from semroute_service.profile import load_profile;"
        "print(load_profile(pathlib.Path(sys.argv[1])).revision)"
    )
    text = changed("id: big-1", "id: big-1, capabilities: [tools, images, json_schema, reasoning]")
    revision = load(tmp_path, text + "# a comment\n").revision
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path / "p.yaml")]
        output = subprocess.check_output(command, env={"PYTHONHASHSEED": seed}, text=True)
        assert output.strip() == revision
    assert load(tmp_path, text.replace("big-1", "big-2")).revision != revision


def test_store(tmp_path: Path) -> None:
    """The store knows the active profile, and an unknown name changes nothing."""
    profile = load(tmp_path, GOOD)
    store = ProfileStore({"p": profile}, "p")
    assert store.get() is store.get("p") is store.active is profile
    with pytest.raises(UnknownProfileError, match='no profile "q"; loaded: p'):
        store.activate("q")
    assert store.all() == [profile]
