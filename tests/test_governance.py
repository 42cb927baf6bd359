"""Governance: every rule admits and denies what it should, and nothing passes by any of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_classifier.utterances import Tier
from semroute_service.governance import RULES, Context, judge, screen
from semroute_service.profile import (
    Backend,
    Model,
    Names,
    Price,
    Profile,
    Route,
    Tenant,
    load_providers,
)
from semroute_service.query import (
    Caller,
    Capability,
    JsonFormat,
    Options,
    Parameter,
    Sampling,
    Sensitivity,
    ToolChoice,
)
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from semroute_service.decision import Candidate

CHAT, TOOLS = Capability.CHAT, Capability.TOOLS


def model(name: str, *, local: bool, region: str = "", **more: Any) -> Model:
    """A model on a backend of its own; cloud backends see public data only."""
    provider = load_providers()["vllm" if local else "openai"]
    clearance = Sensitivity.RESTRICTED if local else Sensitivity.PUBLIC
    backend = Backend(f"{name}-backend", provider, f"http://{name}", local, region, clearance)
    return Model(name, name, backend, **{"capabilities": frozenset({CHAT}), **more})


MODELS = {
    one.name: one
    for one in (
        model("home", local=True, context=1000, region="us"),
        model(
            "sky", local=False, price=Price(10**9, 2 * 10**9), capabilities=frozenset({CHAT, TOOLS})
        ),
        model("europe", local=False, price=Price(10**6, 10**6), region="EU-west-1"),
        model("unpriced", local=False),
        model("o3", local=False),
    )
}
ROUTES = {
    "default": Route("default", {Tier.LOW: ("home",)}, (), True, True),
    "biomedical": Route("biomedical", {Tier.LOW: ("home",)}, (), local_only_reason="sample IDs"),
    "documentation": Route("documentation", {Tier.LOW: ("home",)}, ("sky",), True, False),
}
TENANTS = {
    "clinic": Tenant(allow_cloud=False),
    "students": Tenant(models=Names(allow=frozenset({"home", "europe"}))),
    "lab": Tenant(providers=Names(deny=frozenset({"openai"}))),
}
PROFILE = Profile(
    "test", "", "", "", "hashing", MODELS, ROUTES, {}, allow_cloud=True, tenants=TENANTS
)
CONTEXT = Context(
    profile=PROFILE,
    route=ROUTES["default"],
    caller=Caller(),
    needs=frozenset({CHAT}),
    parameters=frozenset(),
    prompt_tokens=100,
    max_tokens=None,
    max_cost=None,
    budget_left=None,
    has_credentials=lambda model: True,
    is_absent=lambda model: False,
)


@dataclass(frozen=True)
class Case:
    """A context in which one rule, and no other, tells ``denied`` from ``admitted``."""

    denied: str
    admitted: str
    context: dict[str, Any] = field(default_factory=dict)
    fallback: bool = False

    def rulings(self) -> tuple[Candidate, ...]:
        models = [(MODELS[name], self.fallback) for name in (self.denied, self.admitted)]
        return screen(models, replace(CONTEXT, **self.context))


CASES = {
    "local_only": Case("sky", "home", {"caller": Caller(local_only=True)}),
    "allow_cloud": Case("sky", "home", {"route": ROUTES["biomedical"]}),
    "fallback_to_cloud": Case("sky", "home", {"route": ROUTES["documentation"]}, fallback=True),
    "tenant_models": Case("sky", "europe", {"caller": Caller("students")}),
    "tenant_providers": Case("sky", "home", {"caller": Caller("lab")}),
    "residency": Case("sky", "europe", {"caller": Caller(region="eu")}),
    "sensitivity": Case("sky", "home", {"caller": Caller(sensitivity=Sensitivity.INTERNAL)}),
    "capability": Case("home", "sky", {"needs": frozenset({CHAT, TOOLS})}),
    "parameters": Case("o3", "sky", {"parameters": frozenset({Parameter.TEMPERATURE})}),
    "context_length": Case("home", "sky", {"prompt_tokens": 1001}),
    "max_cost": Case("sky", "europe", {"max_cost": 10_000}),
    "monthly_limit": Case("sky", "europe", {"budget_left": 10_000}),
    "no_credentials": Case("sky", "home", {"has_credentials": lambda model: model.local}),
    "not_running": Case("sky", "home", {"is_absent": lambda model: model.name == "sky"}),
}


def rule_on(name: str, *, fallback: bool = False, **changes: Any) -> str:
    """The rule that denies the model in the changed context; empty if it is admitted."""
    return judge_in(name, fallback=fallback, **changes).rule


def judge_in(name: str, *, fallback: bool = False, **changes: Any) -> Candidate:
    return screen([(MODELS[name], fallback)], replace(CONTEXT, **changes))[0]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule(rule: str) -> None:
    """Each rule denies where it should, under its own name and with a reason, and only there."""
    denied, admitted = CASES[rule].rulings()
    assert denied.rule == rule
    assert denied.reason
    assert admitted.admitted
    assert admitted.reason == ""


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_is_dead(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one rule, what it alone denies is admitted: each is needed."""
    monkeypatch.setitem(RULES, rule, lambda candidate, context: None)
    changed = {name for name, case in CASES.items() if case.rulings()[0].admitted}
    assert changed == {rule}


def test_local_only() -> None:
    """The caller's word binds fallbacks and first choices alike."""
    caller = Caller(local_only=True)
    assert rule_on("europe", fallback=True, caller=caller) == "local_only"
    assert rule_on("home", fallback=True, caller=caller) == ""


def test_allow_cloud() -> None:
    """The reason is the row's own words where it has some, and names the row or the profile."""
    assert "sample IDs" in judge_in("sky", route=ROUTES["biomedical"]).reason
    silent = replace(ROUTES["biomedical"], local_only_reason="")
    assert judge_in("sky", route=silent).reason == "the row biomedical does not allow the cloud"
    closed = replace(PROFILE, allow_cloud=False)
    reason = judge_in("sky", route=silent, profile=closed).reason
    assert reason == "the profile test does not allow the cloud"


def test_a_tenant_narrows_allow_cloud() -> None:
    """A tenant may be kept at home where the profile and the row leave the door open."""
    denied = judge_in("sky", caller=Caller("clinic"))
    assert (denied.rule, denied.reason) == (
        "allow_cloud",
        "the tenant clinic may not use the cloud",
    )
    assert rule_on("home", caller=Caller("clinic")) == ""


def test_a_row_does_not_widen_its_profile() -> None:
    """Whatever a row says, nothing leaves a profile that is closed."""
    assert rule_on("sky", profile=replace(PROFILE, allow_cloud=False)) == "allow_cloud"


def test_fallback_to_cloud() -> None:
    """The first choice may leave the building where only the fallbacks may not."""
    assert rule_on("sky", route=ROUTES["documentation"]) == ""
    assert rule_on("sky", route=ROUTES["documentation"], fallback=True) == "fallback_to_cloud"


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        ("", {"home", "sky", "europe"}),
        ("eu", {"europe"}),
        ("Eu-West", {"europe"}),
        ("eu-west-1", {"europe"}),
        ("eu-west-2", set()),
        ("e", set()),
        ("us", {"home"}),
        ("mars", set()),
    ],
)
def test_residency(wanted: str, admitted: set[str]) -> None:
    """A region holds its parts, capitals do not matter, and an undeclared region is in none."""
    caller = Caller(region=wanted)
    assert {n for n in ("home", "sky", "europe") if not rule_on(n, caller=caller)} == admitted


def test_sensitivity() -> None:
    """The profile's default holds where the caller says nothing, and gives way where it does."""
    strict = replace(PROFILE, default_sensitivity=Sensitivity.CONFIDENTIAL)
    assert rule_on("sky", profile=strict) == "sensitivity"
    assert rule_on("home", profile=strict) == ""
    public = Caller(sensitivity=Sensitivity.PUBLIC)
    assert rule_on("sky", profile=strict, caller=public) == ""
    restricted = Caller(sensitivity=Sensitivity.RESTRICTED)
    assert rule_on("home", caller=restricted) == ""


def test_capability() -> None:
    """What is not declared is missing, and the reason lists all of it."""
    needs = frozenset({CHAT, TOOLS, Capability.IMAGES})
    assert judge_in("home", needs=needs).reason == "home does not declare images, tools"
    assert rule_on("home", needs=frozenset()) == ""


def test_parameters() -> None:
    """The reason lists all that is refused, and what the model takes is no reason."""
    every = frozenset(Parameter)
    assert judge_in("o3", parameters=every).reason == "o3 does not take stop, temperature, top_p"
    assert rule_on("o3", parameters=frozenset({Parameter.MAX_TOKENS, Parameter.SEED})) == ""
    assert rule_on("sky", parameters=every) == ""


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (Options(), set()),
        (
            Options(Sampling(0.0, 1.0, 5, ("x",), 0)),
            set(Parameter) - {Parameter.TOOL_CHOICE, Parameter.JSON_OBJECT},
        ),
        (Options(response_format=JsonFormat()), {Parameter.JSON_OBJECT}),
        (Options(response_format=JsonFormat({"type": "object"})), set()),
        (Options(tool_choice=ToolChoice.NONE), {Parameter.TOOL_CHOICE}),
        (Options(Sampling(temperature=0.0)), {Parameter.TEMPERATURE}),
    ],
)
def test_parameters_that_are_set(options: Options, found: set[Parameter]) -> None:
    """Those that the caller gives a value, be it zero, and no others."""
    assert options.parameters == found


def test_context_length() -> None:
    """The answer counts too, a full window fits, and without a chat nothing is measured."""
    assert rule_on("home", prompt_tokens=1000) == ""
    assert rule_on("home", prompt_tokens=1000, max_tokens=1) == "context_length"
    assert rule_on("home", prompt_tokens=9999, needs=frozenset()) == ""


def test_max_cost() -> None:
    """The limit itself is allowed, an unknown price is not, and what is local is free."""
    exact = 100 * 1000 + 50 * 2000
    assert judge_in("sky", max_tokens=50).estimated_cost == exact
    assert rule_on("sky", max_tokens=50, max_cost=exact) == ""
    assert rule_on("sky", max_tokens=50, max_cost=exact - 1) == "max_cost"
    assert rule_on("unpriced", max_cost=10**18) == "max_cost"
    assert rule_on("home", max_cost=0) == ""


def test_monthly_limit() -> None:
    """Of what is left of the month a request takes no more than all, and nothing that is free."""
    exact = 100 * 1000 + 50 * 2000
    assert rule_on("sky", max_tokens=50, budget_left=exact) == ""
    assert rule_on("sky", max_tokens=50, budget_left=exact - 1) == "monthly_limit"
    assert rule_on("unpriced", budget_left=10**18) == "monthly_limit"
    assert rule_on("home", budget_left=-1) == ""


def test_no_credentials() -> None:
    """The reason names the variable that would hold the key."""
    denied = judge_in("sky", has_credentials=lambda model: False)
    assert denied.reason == "OPENAI_API_KEY is not set"


def test_an_earlier_ruling_counts_for_nothing() -> None:
    """Judging again takes the facts as they are now, in both directions."""
    denied = judge_in("sky", caller=Caller(local_only=True))
    assert judge(denied, CONTEXT).admitted
    assert judge(judge(denied, CONTEXT), replace(CONTEXT, max_cost=0)).rule == "max_cost"


REGIONS = st.sampled_from(["", "eu", "EU", "eu-west", "eu-west-1", "us"])
LEVELS = st.sampled_from(Sensitivity)
TOKENS = st.integers(0, 3000)
ABILITIES = st.frozensets(st.sampled_from([CHAT, TOOLS, Capability.IMAGES]))
PRICES = st.builds(Price, st.integers(0, 10**9), st.integers(0, 10**9))
MODEL = st.builds(
    lambda name, local, region, clearance, able, context, price: replace(
        model(name, local=local, capabilities=able, context=context, price=price),
        backend=replace(model(name, local=local, region=region).backend, clearance=clearance),
    ),
    *(st.sampled_from(["m", "o3"]), st.booleans(), REGIONS, LEVELS, ABILITIES),
    *(st.none() | TOKENS, st.none() | PRICES),
)
CONTEXTS = st.builds(
    Context,
    profile=st.builds(
        replace,
        st.just(PROFILE),
        default_sensitivity=st.none() | LEVELS,
        allow_cloud=st.booleans(),
    ),
    route=st.builds(
        replace,
        st.just(ROUTES["default"]),
        allow_cloud=st.booleans(),
        fallback_to_cloud=st.booleans(),
    ),
    caller=st.builds(
        Caller,
        tenant=st.sampled_from(["", *TENANTS, "others"]),
        region=REGIONS,
        sensitivity=st.none() | LEVELS,
        local_only=st.booleans(),
    ),
    needs=ABILITIES,
    parameters=st.frozensets(st.sampled_from(Parameter)),
    prompt_tokens=TOKENS,
    max_tokens=st.none() | st.integers(1, 3000),
    max_cost=st.none() | st.integers(0, 10**7),
    budget_left=st.none() | st.integers(-(10**6), 10**7),
    has_credentials=st.booleans().map(lambda has: lambda model: has),
    is_absent=st.booleans().map(lambda absent: lambda model: absent),
)


def may_answer(model: Model, fallback: bool, asked: Context) -> bool:
    """What the design says, put plainly and without a look at the rules."""
    wanted, stands = (r.lower().split("-") for r in (asked.caller.region, model.backend.region))
    level = asked.caller.sensitivity or asked.profile.default_sensitivity or Sensitivity.PUBLIC
    tokens_out = asked.max_tokens or 4096
    prices = (model.price.input, model.price.output) if model.price else (0, 0)
    cost = (asked.prompt_tokens * prices[0] + tokens_out * prices[1]) / 1_000_000
    limited = asked.max_cost is not None or asked.budget_left is not None
    stays_home = asked.caller.local_only or asked.caller.tenant == "clinic"
    stays_home |= not (asked.route.allow_cloud and asked.profile.allow_cloud)
    in_window = asked.prompt_tokens + (asked.max_tokens or 0) <= (model.context or 10**9)
    return all(
        [
            model.local or not stays_home,
            model.local or not fallback or asked.route.fallback_to_cloud,
            asked.caller.tenant != "students" or model.name in {"home", "europe"},
            asked.caller.tenant != "lab" or model.backend.provider.id != "openai",
            asked.caller.region == "" or stands[: len(wanted)] == wanted,
            level <= model.backend.clearance,
            all(need in model.capabilities for need in asked.needs),
            model.local
            or model.name != "o3"
            or not {"temperature", "top_p", "stop"}.intersection(asked.parameters),
            CHAT not in asked.needs or model.context is None or in_window,
            model.price is not None or model.local or not limited,
            asked.max_cost is None or cost <= asked.max_cost,
            asked.budget_left is None or cost == 0 or cost <= asked.budget_left,
            asked.has_credentials(model),
            not asked.is_absent(model),
        ]
    )


@settings(max_examples=500, deadline=None)
@given(models=st.lists(st.tuples(MODEL, st.booleans()), max_size=4), context=CONTEXTS)
def test_nothing_passes(models: list[tuple[Model, bool]], context: Context) -> None:
    """Whatever the profile and the caller, those are admitted who may answer, and no other."""
    candidates = screen(models, context)
    assert [(c.model, c.is_fallback) for c in candidates] == models
    assert [c.admitted for c in candidates] == [may_answer(*one, context) for one in models]


SERVED: dict[str, Any] = {
    "backends": {"eu": {"provider": "mistral", "clearance": "internal"}},
    "models": {
        "home": {"provider": "echo"},
        "sky": {"provider": "openai", "id": "sky-1"},
        "europe": {"backend": "eu", "id": "europe-1"},
    },
    "routes": {
        "default": {"tiers": {"low": ["sky", "europe", "home"]}},
        "code_generation": {"tiers": {"low": ["sky", "europe"]}},
    },
    "governance": {"allow_cloud": True},
}
QUERY = "write a python script"


@pytest.mark.parametrize(
    ("caller", "rules"),
    [
        (pb.Caller(local_only=True), ["local_only", "local_only"]),
        (pb.Caller(region="eu"), ["residency", "no_credentials"]),
        (pb.Caller(sensitivity=pb.SENSITIVITY_INTERNAL), ["sensitivity", "no_credentials"]),
        (pb.Caller(sensitivity=pb.SENSITIVITY_RESTRICTED), ["sensitivity", "sensitivity"]),
        (pb.Caller(), ["no_credentials", "no_credentials"]),
    ],
)
async def test_refusal_on_the_wire(caller: pb.Caller, rules: list[str]) -> None:
    """FAILED_PRECONDITION has one violation for each candidate, in Decide and in Complete."""
    async with running_server(SERVED) as server, RouterClient(server.address) as client:
        with pytest.raises(RouterError) as decided:
            await client.decide(QUERY, caller=caller)
        with pytest.raises(RouterError) as completed:
            await client.complete(QUERY, caller=caller).read()
    for error in (decided.value, completed.value):
        assert error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.reason == "NO_COMPLIANT_MODEL"
        assert [v.subject for v in error.violations] == ["sky", "europe"]
        assert [v.rule for v in error.violations] == rules


async def test_choice_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that may answer is chosen; a model that the caller names is no exception."""
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("MISTRAL_API_KEY", "test")
    async with running_server(SERVED) as server, RouterClient(server.address) as client:

        async def chosen(named: str = "", **caller: Any) -> str:
            wishes = pb.Preferences(model=named)
            asks = pb.Caller(**caller)
            return (await client.decide(QUERY, caller=asks, preferences=wishes)).model

        assert await chosen() == "sky"
        assert await chosen(region="EU") == "europe"
        assert await chosen(sensitivity=pb.SENSITIVITY_INTERNAL) == "europe"
        assert await chosen("home", local_only=True) == "home"
        with pytest.raises(RouterError) as caught:
            await chosen("sky", local_only=True)
    assert [(v.subject, v.rule) for v in caught.value.violations] == [("sky", "local_only")]
