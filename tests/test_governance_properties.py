"""No chain ever reaches a model that governance denies: random profiles, callers and failures.

What is permitted is said by ``proof.permitted`` from a profile's declarations, and by ``lawful``
here from a file's text; neither shares code with the rules, nor with each other.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from random_profiles import CALLERS, MODELS, PROVIDERS, REASONING, REGIONS, TENANTS, profiles, some
from scripted import SCRIPTS, TURNS, Script, Turn, play
from semroute_classifier.documents import ConfigError
from semroute_service import governance
from semroute_service.profile import Profile, load_profile, load_providers
from semroute_service.proof import kinds_of, permitted, prove
from semroute_service.query import Caller, Sensitivity

if TYPE_CHECKING:
    from pathlib import Path

RELAXED: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ROLES = (False, True)


def admitted(profile: Profile, row: str, caller: Caller, fallback: bool) -> set[str]:
    """Whom governance admits where nothing but profile and caller can deny."""
    context = governance.Context(
        profile=profile,
        route=profile.routes[row],
        caller=caller,
        needs=frozenset(),
        parameters=frozenset(),
        prompt_tokens=0,
        max_tokens=1,
        max_cost=None,
        budget_left=None,
        has_credentials=lambda model: True,
        is_absent=lambda model: False,
    )
    screened = governance.screen([(m, fallback) for m in profile.models.values()], context)
    return {c.model.name for c in screened if c.admitted}


@settings(max_examples=120, **RELAXED)
@given(profile=profiles(limited=False))
def test_governance_admits_what_the_profile_permits(profile: Profile) -> None:
    """Those and no others: for every caller that the profile tells apart, on every row, as the
    first choice and as a fallback."""
    _, *kinds = kinds_of(profile).values()
    for values in itertools.product(*kinds):
        caller = Caller(*values)
        for row, route in profile.routes.items():
            for fallback in ROLES:
                found = admitted(profile, row, caller, fallback)
                assert found == permitted(profile, route, caller, fallback)


@settings(max_examples=40, **RELAXED)
@given(profile=profiles())
def test_the_proof_holds_for_every_profile(profile: Profile) -> None:
    """No profile, however odd, makes governance admit what it forbids."""
    proof = prove(profile)
    assert proof.violations == ()
    assert proof.rows == len(profile.routes)


def test_no_attempt_is_ever_made_that_governance_denies() -> None:
    """Whatever fails, runs out or goes away between attempts, in sessions and out of them, with
    each model named by the caller and with none, whether an answer begins again or not."""
    tally: Counter[str] = Counter()

    def check(profile: Profile, script: Script, turns: list[Turn]) -> None:
        for named in ("", *MODELS):
            for restart in ROLES:
                asked = [turn.variant(named, allow_restart=restart) for turn in turns]
                tally.update(play(profile, script, asked), cases=1)

    turns = st.lists(TURNS, min_size=2, max_size=4)
    for profile, examples in ((profiles(), 250), (profiles(providers=tuple(REASONING)), 60)):
        play_out = given(profile=profile, script=SCRIPTS, turns=turns)(check)
        settings(max_examples=examples, **RELAXED)(play_out)()
    # The cases did go where they should, so that none of this is idle.
    assert tally["cases"] >= 2000
    assert tally["attempt"] > 300
    kinds = ("fallback", "named", "pinned", "denied between attempts", "restart")
    for kind in (*kinds, "takes no temperature"):
        assert tally[kind], kind


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A profile as a file holds it."""

    def optional(**keys: st.SearchStrategy[Any]) -> dict[str, Any]:
        return draw(st.fixed_dictionaries({}, optional=keys))

    names = some(MODELS, min_size=1)
    lists = {"allow": some(MODELS), "deny": some(MODELS)}
    offered = {"allow": some(PROVIDERS), "deny": some(PROVIDERS)}
    tenant = st.fixed_dictionaries(
        {},
        optional={
            "allow_cloud": st.just(False),
            "models": st.fixed_dictionaries({}, optional=lists),
            "providers": st.fixed_dictionaries({}, optional=offered),
        },
    )
    words = st.sampled_from([level.name.lower() for level in Sensitivity])
    regions = st.sampled_from(REGIONS)
    backends = {}
    for name in MODELS:
        provider = draw(st.sampled_from(PROVIDERS))
        local = {"url": "http://gpu:8000/v1"} if provider == "vllm" else {}
        more = optional(locality=st.just("cloud"), region=regions, clearance=words)
        backends[name] = {"provider": provider, **local, **more}
    row = optional(
        fallback_chain=some(MODELS), allow_cloud=st.just(False), fallback_to_cloud=st.just(False)
    )
    return {
        "backends": backends,
        "models": {name: {"backend": name, "id": name} for name in MODELS},
        "routes": {"default": {"tiers": {"low": draw(names)}, **row}},
        "fallback_chain": draw(some(MODELS)),
        "governance": {"allow_cloud": True}
        | optional(
            allow_cloud=st.booleans(),
            region=regions,
            default_sensitivity=words,
            tenants=st.dictionaries(st.sampled_from([*TENANTS, "*"]), tenant),
        ),
    }


def lawful(written: dict[str, Any], caller: Caller, fallback: bool) -> set[str]:
    """The models that may answer, read off the file as a person would read it."""
    rules, row = written["governance"], written["routes"]["default"]
    tenants = rules.get("tenants", {})
    tenant = tenants.get(caller.tenant, tenants.get("*", {}))
    said = [rules.get("allow_cloud", False), row.get("allow_cloud", True)]
    said += [tenant.get("allow_cloud", True), not caller.local_only]
    said += [not fallback or row.get("fallback_to_cloud", True)]
    levels = {"public": 1, "internal": 2, "confidential": 3, "restricted": 4, None: 0}
    level = caller.sensitivity or levels[rules.get("default_sensitivity")]
    found = set()
    for name, backend in written["backends"].items():
        provider = backend["provider"]
        leaves = provider not in {"vllm", "ollama"} or backend.get("locality") == "cloud"
        home = "" if leaves else rules.get("region", "")
        region = backend.get("region") or home or ("eu" if provider == "mistral" else "")
        clearance = levels[backend.get("clearance", "public" if leaves else "restricted")]
        inside = f"{region}-".lower().startswith(f"{caller.region}-".lower())
        lists = [(tenant.get("models", {}), name), (tenant.get("providers", {}), provider)]
        listed = all(
            one in names.get("allow", [one]) and one not in names.get("deny", ())
            for names, one in lists
        )
        if (all(said) or not leaves) and (not caller.region or inside) and listed:
            found |= {name} if clearance >= level else set()
    return found


def servable(written: dict[str, Any]) -> bool:
    """Whether there is anybody whom the only row could serve."""
    row = written["routes"]["default"]
    opened = {k: v for k, v in written["governance"].items() if k in {"allow_cloud", "region"}}
    first, behind = (lawful({**written, "governance": opened}, Caller(), role) for role in ROLES)
    chain = row.get("fallback_chain", written["fallback_chain"])
    return bool(first.intersection(row["tiers"]["low"]) or behind.intersection(chain))


def test_a_file_means_what_it_says(tmp_path: Path) -> None:
    """What governance admits under a loaded file is what the file's text permits, and refused are
    those whose row could serve nobody."""
    tally: Counter[str] = Counter()

    @settings(max_examples=150, **RELAXED)
    @given(written=documents(), callers=st.lists(CALLERS, min_size=1, max_size=6))
    def check(written: dict[str, Any], callers: list[Caller]) -> None:
        path = tmp_path / "p.yaml"
        path.write_text(json.dumps(written), encoding="utf-8")
        if not servable(written):
            tally["refused"] += 1
            with pytest.raises(ConfigError, match=r"default: can never be served at tier low"):
                load_profile(path, environment={})
            return
        tally["loaded"] += 1
        profile = load_profile(path, environment={})
        assert prove(profile).violations == ()
        for caller in callers:
            for fallback in ROLES:
                tally["admitted"] += len(lawful(written, caller, fallback))
                found = admitted(profile, "default", caller, fallback)
                assert found == lawful(written, caller, fallback)

    check()
    assert tally["loaded"] > 50
    assert tally["refused"]
    assert tally["admitted"] > 100


def test_the_strategies_know_the_catalogue() -> None:
    """Random profiles use providers that there are, local ones and clouds."""
    localities = {load_providers()[name].locality for name in PROVIDERS}
    assert localities == {"local", "cloud"}
