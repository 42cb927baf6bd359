"""The static proof: whom it calls never served, how it says so, and what the check prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from semroute_service.cli import main
from semroute_service.governance import RULES, rules
from semroute_service.profile import Profile, load_profile, load_profiles
from semroute_service.proof import kinds_of, prove
from semroute_service.query import Sensitivity

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
PROFILE = """\
backends:
  gpu: {provider: vllm, url: "http://gpu:8000/v1", region: eu-west-1}
  europe: {provider: mistral, clearance: internal}
models:
  big: {backend: gpu, id: big}
  vectors: {backend: gpu, id: vectors, kind: embedding}
  middle: {backend: europe, id: middle}
  sky: {provider: openai, id: sky}
routes:
  biomedical: {model: big, allow_cloud: false}
  default: {tiers: {low: [big], high: [sky, middle]}}
governance: {allow_cloud: true}
"""


def load(folder: Path, changes: Mapping[str, str] | None = None) -> Profile:
    text = PROFILE
    for old, new in (changes or {}).items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path, environment={})


def test_what_is_told_apart(tmp_path: Path) -> None:
    """Tenants and regions of the profile, others, and none; a region with all it lies in."""
    tenants = "{allow_cloud: true, tenants: {lab: {}, '*': {}}}"
    kinds = kinds_of(load(tmp_path, {"{allow_cloud: true}": tenants}))
    assert kinds["tenant"] == ("", "lab", "any other")
    assert kinds["region"] == ("", "eu", "eu-west", "eu-west-1", "any other")
    assert kinds["sensitivity"] == (None, *Sensitivity)
    assert kinds["local_only"] == kinds["answer"] == (False, True)
    assert prove(load(tmp_path)).requests == 2 * 2 * 5 * 5 * 2


EVERYBODY = "{tiers: {low: [big], high: [sky, middle]}}"
HIGH = "default at tier medium and high"
LEAVES = [
    f"{HIGH}: region eu-west or eu-west-1",
    f"{HIGH}: sensitivity confidential or restricted",
    f"{HIGH}: local_only",
]
NEVER: dict[str, tuple[dict[str, str], list[str]]] = {
    "what leaves the building": ({}, LEAVES),
    "a fallback serves": ({"[sky, middle]}": "[sky]}, fallback_chain: [big]"}, []),
    "a fallback that stays behind": (
        {"[sky, middle]}": "[sky]}, fallback_chain: [middle], fallback_to_cloud: false"},
        [
            f"{HIGH}: region eu or eu-west or eu-west-1",
            f"{HIGH}: sensitivity internal or confidential or restricted",
            f"{HIGH}: local_only",
        ],
    ),
    "an answer": ({EVERYBODY: "{model: vectors}"}, ["default: Complete"]),
    "a default": (
        {
            EVERYBODY: "{model: sky}",
            "{allow_cloud: true}": "{allow_cloud: true, default_sensitivity: internal}",
        },
        [
            "default: no sensitivity or internal or confidential or restricted",
            "default: region eu or eu-west or eu-west-1",
            "default: local_only",
        ],
    ),
    "two conditions": (
        {
            EVERYBODY: "{tiers: {low: [big, sky]}}",
            "{allow_cloud: true}": "{allow_cloud: true, tenants: {lab: {models: {deny: [big]}}}}",
        },
        [
            "biomedical: tenant lab",
            "default: tenant lab and region eu or eu-west or eu-west-1",
            "default: tenant lab and sensitivity internal or confidential or restricted",
            "default: tenant lab and local_only",
        ],
    ),
    "every row": (
        {
            "governance: {allow_cloud: true}": "governance: {allow_cloud: true, "
            "tenants: {lab: {}, '*': {models: {allow: []}}}}"
        },
        ["every row: no tenant or any other tenant", *LEAVES],
    ),
    "nobody": (
        {"{allow_cloud: true}": "{allow_cloud: true, tenants: {'*': {models: {allow: []}}}}"},
        ["every row: every request"],
    ),
}


@pytest.mark.parametrize("case", NEVER)
def test_who_is_never_served(tmp_path: Path, case: str) -> None:
    """Told is the smallest cause, once for all rows and values that share it."""
    changes, told = NEVER[case]
    proof = prove(load(tmp_path, changes))
    assert proof.violations == ()
    assert sorted(map(str, proof.unserved)) == sorted(told)


def test_a_row_that_serves_nobody_is_a_warning(tmp_path: Path) -> None:
    """Such a row does not load; should there be one, the check says so."""
    profile = load(tmp_path)
    closed = replace(profile.routes["biomedical"], tiers={1: ("sky",)})  # type: ignore[dict-item]
    profile = replace(profile, routes={"biomedical": closed, "default": profile.routes["default"]})
    assert prove(profile).warnings == ("never served: biomedical: every request",)


def test_a_violation_names_row_model_and_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person sees where the rules and the profile part."""
    monkeypatch.setitem(RULES, "allow_cloud", lambda candidate, context: None)
    found = prove(load(tmp_path)).violations
    assert found[0].startswith("row biomedical admits middle as the first choice, ")
    assert found[0].endswith("Decide, no tenant, no region, no sensitivity, not local_only")
    assert {line.split(" as ")[0] for line in found} == {
        "row biomedical admits middle",
        "row biomedical admits sky",
    }


def test_shipped_profiles() -> None:
    """Nothing that a shipped profile forbids is reached, and none of its rows is idle."""
    for profile in load_profiles(ROOT / "profiles", environment={}).values():
        proof = prove(profile)
        assert proof.violations == ()
        assert proof.warnings == ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Profiles with one for the check."""
    load(tmp_path)
    return tmp_path


def test_check_proves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for a profile, and with --proof the rules and who is never served."""
    assert main(["check", "--profiles", str(folder)]) == 0
    line = "governance: p: proved for 2 rows x 200 kinds of request"
    assert f"{line}; some are never served (--proof lists them)\n" in capsys.readouterr().out
    assert main(["check", "--profiles", str(folder), "--proof"]) == 0
    printed = capsys.readouterr().out
    assert f"{line}\n  never served: {HIGH}: region" in printed
    assert all(rule in printed for rule in RULES)


def test_check_proves_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the same, in full."""
    assert main(["check", "--profiles", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rules"] == rules()
    proof = told["governance"]["p"]
    assert (proof["rows"], proof["requests"]) == (2, 200)
    assert {"rows": [HIGH], "conditions": ["local_only"]} in proof["never_served"]


def test_check_fails_on_a_violation(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that let through what a profile forbids are an error of the check."""
    monkeypatch.setitem(RULES, "local_only", lambda candidate, context: None)
    assert main(["check", "--profiles", str(folder)]) == 1
    assert "error: profile p: row default admits" in capsys.readouterr().out


def test_check_warns_of_tenants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tenant that is never served on a row is a warning."""
    tenants = "{allow_cloud: true, tenants: {lab: {models: {deny: [big]}}}}"
    load(tmp_path, {"{allow_cloud: true}": tenants})
    assert main(["check", "--profiles", str(tmp_path)]) == 0
    told = "warning: profile p: never served: biomedical, default at tier low: tenant lab\n"
    assert told in capsys.readouterr().out
