"""The registry of rules: each is needed, each has a reason in words, and each fails closed.

Every rule that is found in the registry has a scenario here, in which a real server passes over a
model by that rule alone. With the rule turned into "admit" the same check fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

import test_governance
from semroute.v1 import router_pb2 as pb
from semroute_service.governance import RULES, judge, rules
from semroute_service.profile import Names, Tenant
from semroute_service.proof import prove
from semroute_service.query import Caller
from upstream import ask, nobody, profile, routed, upstream

if TYPE_CHECKING:
    from semroute_service.decision import Candidate
    from semroute_service.governance import Context

SECRET = "sk-do-not-tell"


@dataclass(frozen=True)
class Scenario:
    """What is changed about a profile and a request that the model ``second`` could answer."""

    profile: dict[str, Any] = field(default_factory=dict)
    ask: dict[str, Any] = field(default_factory=dict)
    key: bool = True


def tenant(**lists: Any) -> dict[str, Any]:
    return {"governance": {"allow_cloud": True, "tenants": {"*": lists}}}


PRICED = {"models": {"second": {"price": {"input": 1, "output": 1}}}}
SCENARIOS = {
    "local_only": Scenario(ask={"caller": pb.Caller(local_only=True)}),
    "allow_cloud": Scenario({"governance": {"allow_cloud": False}}),
    "fallback_to_cloud": Scenario({"row": {"fallback_to_cloud": False}}),
    "tenant_models": Scenario(tenant(models={"deny": ["second"]})),
    "tenant_providers": Scenario(tenant(providers={"allow": ["vllm"]})),
    "residency": Scenario(
        {"governance": {"allow_cloud": True, "region": "eu"}}, {"caller": pb.Caller(region="eu")}
    ),
    "sensitivity": Scenario(ask={"caller": pb.Caller(sensitivity=pb.SENSITIVITY_INTERNAL)}),
    "capability": Scenario(
        {"models": {"first": {"capabilities": ["reasoning"]}}},
        {"preferences": pb.Preferences(required_capabilities=[pb.CAPABILITY_REASONING])},
    ),
    "parameters": Scenario(
        {"models": {"second": {"id": "deepseek-reasoner"}}},
        {"sampling": pb.Sampling(temperature=0.5)},
    ),
    "context_length": Scenario({"models": {"second": {"context": 5}}}),
    "max_cost": Scenario(PRICED, {"preferences": pb.Preferences(max_cost_nano_usd=1)}),
    "monthly_limit": Scenario({**PRICED, "cost": {"monthly_limit": 0.0001}}),
    "no_credentials": Scenario(key=False),
    "not_running": Scenario({"backends": {"second": {"optional": True}}}),
}


async def check(rule: str, scenario: Scenario, patch: pytest.MonkeyPatch) -> None:
    """``rule`` denies the cloud model, which would answer since the local one before it fails."""
    if scenario.key:
        patch.setenv("DEEPSEEK_API_KEY", "k")
    async with upstream() as cloud:
        parts = {"governance": {"allow_cloud": True}, **scenario.profile}
        own = parts.pop("backends", {}).get("second", {})
        parts["backends"] = {"second": {"provider": "deepseek", **own}}
        async with routed(profile(nobody(), cloud, **parts)) as client:
            told = await ask(client, **scenario.ask)
    assert told.answer.decision
    candidates = {c.model: c for c in told.answer.decision.candidates}
    assert candidates["first"].rule == ""
    assert candidates["second"].rule == rule
    assert bool(candidates["second"].reason) == bool(rule)
    assert bool(cloud.requests) == (rule == "")


async def test_without_a_scenario_the_cloud_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each scenario denies is its own doing."""
    await check("", Scenario(), monkeypatch)


@pytest.mark.parametrize("rule", RULES)
async def test_a_real_server_denies(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule of the registry has a scenario, and a server denies by that rule there."""
    await check(rule, SCENARIOS[rule], monkeypatch)


@pytest.mark.parametrize("rule", RULES)
async def test_without_the_rule_its_tests_fail(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule turned into "admit" is found out: on the wire, and by the test of the rules."""
    monkeypatch.setitem(RULES, rule, lambda candidate, context: None)
    with pytest.raises(AssertionError):
        await check(rule, SCENARIOS[rule], monkeypatch)
    with pytest.raises(AssertionError):
        test_governance.test_each_rule(rule)


STATIC = replace(
    test_governance.PROFILE,
    routes={**test_governance.ROUTES, "safety": test_governance.ROUTES["biomedical"]},
    tenants={
        "students": Tenant(models=Names(deny=frozenset({"sky"}))),
        "lab": Tenant(providers=Names(deny=frozenset({"openai"}))),
    },
)
FIXED = [
    "local_only",
    "allow_cloud",
    "fallback_to_cloud",
    "tenant_models",
    "tenant_providers",
    "residency",
    "sensitivity",
]
"""The rules that ask about nothing but the profile and the caller."""


@pytest.mark.parametrize("rule", FIXED)
def test_without_the_rule_the_proof_fails(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``semroute check`` itself finds a rule that lets through what a profile forbids."""
    assert prove(STATIC).violations == ()
    monkeypatch.setitem(RULES, rule, lambda candidate, context: None)
    assert prove(STATIC).violations


def broken(candidate: Candidate, context: Context) -> str | None:
    raise ValueError(f"no rule can read {SECRET}")


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_cannot_be_evaluated_denies(
    rule: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under its own name, and without a word of what it failed on; the log has the kind."""
    monkeypatch.setitem(RULES, rule, broken)
    denied = test_governance.judge_in("home")
    assert denied.rule == rule
    assert denied.reason == "cannot be evaluated, and what cannot be evaluated is denied"
    (record,) = caplog.records
    assert record.getMessage() == f"the rule {rule} failed on home: ValueError"
    assert SECRET not in caplog.text


def test_a_fact_that_cannot_be_had_denies() -> None:
    """A fact that fails when a rule asks for it is no admission either."""

    def unknown(model: Any) -> bool:
        raise OSError(SECRET)

    context = replace(test_governance.CONTEXT, has_credentials=unknown)
    candidate = test_governance.judge_in("home")
    assert judge(candidate, context).rule == "no_credentials"
    context = replace(test_governance.CONTEXT, is_absent=unknown)
    assert judge(candidate, context).rule == "not_running"
    context = replace(test_governance.CONTEXT, caller=Caller(region=3))  # type: ignore[arg-type]
    assert judge(candidate, context).rule == "residency"


async def test_a_broken_rule_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose rule fails answers nobody, and tells nobody why."""
    monkeypatch.setitem(RULES, "residency", broken)
    async with upstream() as local, routed(profile(local)) as client:
        told = await ask(client)
    assert told.error
    assert [(v.subject, v.rule) for v in told.error.violations] == [("first", "residency")]
    assert SECRET not in told.everything
    assert not local.requests


def test_every_rule_is_told_in_words() -> None:
    """Each has one plain sentence, which the check and the documentation list."""
    told = rules()
    assert list(told) == list(RULES)
    for sentence in told.values():
        assert re.fullmatch(r"[A-Z][^.]+\.", sentence), sentence
    assert len(set(told.values())) == len(told)
