"""Tenants: what their lists mean, how mistakes in them are told, and whom they keep out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_classifier.documents import ConfigError
from semroute_service.profile import Names, Profile, Tenant, load_profile
from semroute_service.proof import prove
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROFILE = """\
backends:
  gpu: {provider: vllm, url: "http://gpu:8000/v1"}
models:
  small: {backend: gpu, id: small}
  large: {backend: gpu, id: large}
  embedder: {backend: gpu, id: embedder, kind: embedding}
  sky: {provider: openai, id: sky}
routes:
  biomedical: {model: small, allow_cloud: false}
  default: {tiers: {low: [small], high: [sky]}}
classifier: {encoder: auto}
governance:
  allow_cloud: true
  tenants:
    students: TENANT
"""


def load(folder: Path, tenant: str, changes: Mapping[str, str] | None = None) -> Profile:
    """PROFILE with what the students may use, and other changes."""
    text = PROFILE
    for old, new in {**(changes or {}), "TENANT": tenant}.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path, environment={})


@pytest.mark.parametrize(
    ("names", "admitted"),
    [
        (Names(), {"a", "b"}),
        (Names(allow=frozenset("a")), {"a"}),
        (Names(deny=frozenset("a")), {"b"}),
        (Names(allow=frozenset("ab"), deny=frozenset("a")), {"b"}),
        (Names(allow=frozenset()), set()),
    ],
)
def test_lists(names: Names, admitted: set[str]) -> None:
    """An allow list lets in its own and an empty one nobody; a deny list wins over it."""
    assert {name for name in "ab" if names.admits(name)} == admitted


def test_reading(tmp_path: Path) -> None:
    """What is written is what holds, and what is left out restricts nothing."""
    written = "{allow_cloud: false, models: {allow: [small]}, providers: {deny: [openai, groq]}}"
    tenant = load(tmp_path, written).tenant("students")
    assert tenant == Tenant(
        False, Names(frozenset({"small"})), Names(None, frozenset({"openai", "groq"}))
    )
    assert load(tmp_path, "{}").tenant("students") == Tenant()
    assert load(tmp_path, "{models: {allow: []}}").tenant("students").models.allow == frozenset()


def test_who_is_not_listed(tmp_path: Path) -> None:
    """The star is every tenant that is not listed, and who names none; without it, no limit."""
    profile = load(tmp_path, "{allow_cloud: false}")
    assert profile.tenant("staff") == profile.tenant("") == profile.tenant("Students") == Tenant()
    profile = load(tmp_path, '{}\n    "*": {allow_cloud: false}')
    assert profile.tenant("staff") == profile.tenant("") == Tenant(allow_cloud=False)
    assert profile.tenant("students") == Tenant()


MISTAKES = [
    ("{models: {allow: [smal]}}", ".models.allow[0]", 'no model "smal"; did you mean "small"?'),
    ("{models: {deny: [sky, skye]}}", ".models.deny[1]", 'no model "skye"; did you mean "sky"?'),
    (
        "{providers: {allow: [opnai]}}",
        ".providers.allow[0]",
        'provider "opnai"; did you mean "open',
    ),
    ("{providers: {deny: [gpu]}}", ".providers.deny[0]", 'there is no provider "gpu"'),
    ("{models: {alow: []}}", ".models.alow", 'unknown key; did you mean "allow"?'),
    ("{model: {}}", ".model", 'unknown key; did you mean "models"?'),
    ("{models: [small]}", ".models", "must hold keys and values"),
    ("{models: {allow: small}}", ".models.allow", "must be a list"),
    ("{allow_cloud: maybe}", ".allow_cloud", "must be true or false"),
]


@pytest.mark.parametrize(("tenant", "key", "says"), MISTAKES)
def test_a_mistake_is_told_where_it_stands(
    tmp_path: Path, tenant: str, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, tenant)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (15, f"governance.tenants.students{key}")
    assert says in problem.message


def test_a_tenant_may_only_narrow(tmp_path: Path) -> None:
    """A tenant to which a closed profile says yes is refused, and so is one without a name."""
    closed = {"allow_cloud: true": "allow_cloud: false", "high: [sky]": "high: [small]"}
    with pytest.raises(ConfigError, match=r"allow_cloud: widens what governance\.allow_cloud"):
        load(tmp_path, "{allow_cloud: true}", closed)
    assert not load(tmp_path, "{}", closed).tenant("students").allow_cloud
    with pytest.raises(ConfigError, match=r'"\*" holds for callers that name no tenant'):
        load(tmp_path, "{}", {"students": '""'})


@pytest.mark.parametrize(
    "tenant",
    ["{models: {deny: [embedder]}}", "{models: {allow: [small]}}", "{providers: {deny: [vllm]}}"],
)
def test_the_encoder_is_open_to_every_tenant(tmp_path: Path, tenant: str) -> None:
    """Every query goes to the encoder first, so nobody may be kept from it."""
    remote = {"encoder: auto": "encoder: {model: embedder}"}
    with pytest.raises(ConfigError, match='"embedder" is denied to the tenant "students"'):
        load(tmp_path, tenant, remote)
    load(tmp_path, "{models: {deny: [large]}}", remote)


@pytest.mark.parametrize(
    ("tenant", "warnings"),
    [
        ("{}", []),
        ("{models: {deny: [large]}}", []),
        ("{allow_cloud: false}", ["default at tier medium and high"]),
        ("{providers: {deny: [openai]}}", ["default at tier medium and high"]),
        ("{models: {deny: [small]}}", ["biomedical", "default at tier low"]),
        ("{models: {allow: []}}", ["every row"]),
    ],
)
def test_a_tenant_that_is_never_served_is_a_warning(
    tmp_path: Path, tenant: str, warnings: list[str]
) -> None:
    """The check names the rows on which nothing is left for a tenant."""
    found = prove(load(tmp_path, tenant)).warnings
    assert list(found) == [
        f"never served: {rows}: tenant students" for rows in [", ".join(warnings)] if rows
    ]


SERVED: dict[str, Any] = {
    "models": {"one": {"provider": "echo"}, "two": {"provider": "echo"}},
    "routes": {"default": {"model": "one", "fallback_chain": ["two"]}},
    "governance": {
        "tenants": {"students": {"models": {"deny": ["one"]}}, "*": {"models": {"allow": []}}}
    },
}


async def test_on_the_wire() -> None:
    """Another model answers a tenant that may not use the first, also where it names that one."""
    async with running_server(SERVED) as server, RouterClient(server.address) as client:
        decision = await client.decide("hello", caller=pb.Caller(tenant="students"))
        assert decision.model == "two"
        assert decision.candidates[0].rule == "tenant_models"
        for caller, wishes in (
            (pb.Caller(tenant="students"), pb.Preferences(model="one")),
            (pb.Caller(), pb.Preferences()),
        ):
            with pytest.raises(RouterError) as caught:
                await client.complete("hello", caller=caller, preferences=wishes).read()
            assert {v.rule for v in caught.value.violations} == {"tenant_models"}
    assert caught.value.violations[0].description == (
        "a caller that names no tenant may not use the model one"
    )
