"""Strategies of hypothesis for profiles and callers, of every shape that governance can meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from semroute_classifier.utterances import Tier
from semroute_service.profile import (
    ANY_TENANT,
    Backend,
    Behavior,
    Limits,
    Model,
    Names,
    Price,
    Profile,
    Route,
    Tenant,
    load_providers,
)
from semroute_service.profile.providers import Speed
from semroute_service.query import Caller, Capability, Objective, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = ("a", "b", "c", "d")
PROVIDERS = ("vllm", "ollama", "openai", "deepseek", "mistral")
REASONING = {"openai": "o3", "deepseek": "deepseek-reasoner"}
"""A model of each of these providers that takes no temperature."""
TENANTS = ("clinic", "students")
REGIONS = ("", "eu", "EU-west", "eu-west-1", "us")
ROWS = ("default", "biomedical")


def some(values: Sequence[str], **limits: Any) -> st.SearchStrategy[list[str]]:
    """Some of ``values``, none twice, in any order."""
    return st.lists(st.sampled_from(values), unique=True, **limits)


def _lists(values: Sequence[str]) -> st.SearchStrategy[Names]:
    few = some(values, max_size=2).map(frozenset)
    return st.just(Names()) | st.builds(Names, st.none() | some(values).map(frozenset), few)


LEVELS = st.sampled_from(Sensitivity)
MONEY = st.sampled_from([None, None, None, 0, 10**5, 10**7, 10**8, 10**12])
CALLERS = st.builds(
    Caller,
    tenant=st.sampled_from(["", *TENANTS, "others"]),
    region=st.sampled_from([*REGIONS, *REGIONS[:2], "e", "mars"]),
    sensitivity=st.none() | LEVELS,
    local_only=st.booleans(),
)
_TENANTS = st.dictionaries(
    st.sampled_from([*TENANTS, ANY_TENANT]),
    st.builds(Tenant, st.booleans(), _lists(MODELS), _lists(PROVIDERS)),
)
_PRICES = st.none() | st.builds(Price, *[st.sampled_from([0, 10**6, 10**10])] * 2)
_RATES = st.none() | st.sampled_from([5.0, 100.0])
_SPEEDS = st.none() | st.builds(
    lambda first, rate: Speed(first_token_seconds=first, tokens_per_second=rate),
    st.sampled_from([0.1, 3.0]),
    _RATES,
)
_CHAT, _TOOLS = Capability.CHAT, Capability.TOOLS
_ABLE = st.sampled_from([{_CHAT}, {_CHAT, _TOOLS}, {_CHAT, _TOOLS}, {_TOOLS}]).map(frozenset)


@st.composite
def _models(draw: st.DrawFn, names: Sequence[str]) -> dict[str, Model]:
    """All of them at the providers ``names``."""
    providers = load_providers()
    found = {}
    for name in MODELS:
        provider = providers[draw(st.sampled_from([*names, *names[:2]]))]
        backend = Backend(
            name=f"{name}-backend",
            provider=provider,
            url=f"http://{name}",
            local=provider.local and draw(st.integers(0, 5)) > 0,
            region=draw(st.sampled_from(REGIONS)),
            clearance=draw(st.sampled_from([*Sensitivity, *[Sensitivity.RESTRICTED] * 3])),
            optional=draw(st.integers(0, 3)) == 0,
        )
        context = draw(st.sampled_from([None, None, 10, 30, 5000]))
        known = draw(st.sampled_from([name, REASONING.get(provider.id, name)]))
        found[name] = Model(
            name,
            known,
            backend,
            draw(_ABLE),
            context,
            draw(_PRICES),
            quality=draw(st.sampled_from([None, 0, 40, 90])),
            speed=draw(_SPEEDS),
        )
    return found


_ROUTES = st.fixed_dictionaries(
    {
        row: st.builds(
            Route,
            task=st.just(row),
            tiers=st.dictionaries(
                st.sampled_from(Tier), some(MODELS, min_size=2).map(tuple), min_size=1
            ),
            fallback_chain=some(MODELS, min_size=1).map(tuple),
            allow_cloud=st.sampled_from([False, True, True]),
            fallback_to_cloud=st.sampled_from([False, True, True]),
            max_tokens=st.none() | st.sampled_from([5, 1000]),
        )
        for row in ROWS
    }
)


@st.composite
def profiles(
    draw: st.DrawFn, *, limited: bool = True, providers: Sequence[str] = PROVIDERS
) -> Profile:
    """A profile, not only such as could be loaded; without ``limited`` money plays no part."""
    models = draw(_models(providers))
    return Profile(
        name="test",
        description="",
        version="",
        revision="",
        encoder="hashing",
        models=models,
        routes=draw(_ROUTES),
        backends={model.backend.name: model.backend for model in models.values()},
        behavior=Behavior(
            draw(st.booleans()),
            draw(st.integers(0, 1)),
            objective=draw(st.none() | st.sampled_from(Objective)),
        ),
        limits=Limits(draw(MONEY), draw(MONEY)) if limited else Limits(),
        allow_cloud=draw(st.integers(0, 3)) > 0,
        default_sensitivity=draw(st.sampled_from([*Sensitivity, *[None] * 6])),
        tenants=draw(st.just({}) | st.just({}) | _TENANTS),
    )
