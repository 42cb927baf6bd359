"""``semroute profile``: what there is, which fits, what one says, how two differ, and switching."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from processes import run
from semroute import RouterClient
from semroute_service.cli import main
from semroute_service.testing import ECHO_PROFILE, UTTERANCES, running_server, write_files
from upstream import nobody

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]

KEY = "sk-xyzzy"
SHIPPED = Path(__file__).parents[1] / "profiles"
HYBRID: dict[str, Any] = {
    "description": "One server, one cloud",
    "hardware": {"rank": 10, "gpu_types": ["ZX80"], "required_cloud_apis": ["deepseek"]},
    "backends": {"gpu": {"provider": "vllm", "url": "http://127.0.0.1:1/v1"}},
    "models": {
        "coder": {"backend": "gpu", "id": "Coder-7B", "context": 32768},
        "cloud": {
            "provider": "deepseek",
            "id": "deepseek-chat",
            "price": {"input": 0.14, "output": 0.28},
        },
    },
    "routes": {
        "code_generation": {"tiers": {"low": ["coder"], "high": ["cloud", "coder"]}},
        "biomedical": {
            "model": "coder",
            "allow_cloud": False,
            "local_only_reason": "May hold sample IDs",
        },
        "default": {"model": "coder", "fallback_to_cloud": False},
    },
    "fallback_chain": ["cloud"],
    "cost": {"monthly_limit": 50.0},
    "governance": {"allow_cloud": True},
}


@pytest.fixture
def semroute(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``semroute profile``; returns its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["profile", *map(str, arguments)])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a tree: hybrid, then plain; spare has no rank."""
    profiles = {
        "hybrid": HYBRID,
        "plain": {**ECHO_PROFILE, "hardware": {"rank": 90}},
        "spare": ECHO_PROFILE,
    }
    write_files(tmp_path / "profiles", profiles)
    write_files(tmp_path / "utterances", UTTERANCES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMROUTE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    return tmp_path


def words(text: str) -> str:
    """``text`` as one line, however it was wrapped."""
    return " ".join(text.split())


def test_list_for_people(semroute: Command, folder: Path) -> None:
    """In the order of choice, with an arrow at the one that would be chosen and what each lacks."""
    status, out, err = semroute("list")
    assert (status, err) == (0, "")
    assert re.findall(r"^(→?) +(\w+) +(\d+|-) +(yes|no) ", out, re.MULTILINE) == [
        ("", "hybrid", "10", "no"),
        ("→", "plain", "90", "yes"),
        ("", "spare", "-", "yes"),
    ]
    assert "missing: a GPU of type ZX80; met: the key of DeepSeek (DEEPSEEK_API_KEY)" in words(out)
    assert KEY not in out


def test_list_for_programs(semroute: Command, folder: Path) -> None:
    """With --json every requirement is there, and the name of the one that would be chosen."""
    status, out, _ = semroute("list", "--json")
    listed = json.loads(out)
    assert (status, listed["chosen"]) == (0, "plain")
    assert listed["profiles"][0] == {
        "profile": "hybrid",
        "description": "One server, one cloud",
        "rank": 10,
        "fits": False,
        "requirements": [
            {"what": "a GPU of type ZX80", "met": False},
            {"what": "the key of DeepSeek (DEEPSEEK_API_KEY)", "met": True},
        ],
    }


def test_recommend_for_people(semroute: Command, folder: Path) -> None:
    """It says which, why, and why not those before it."""
    assert semroute("recommend") == (
        0,
        "plain: it requires nothing, and no local model server answers\n"
        "  not hybrid: it requires what is not here: a GPU of type ZX80\n",
        "",
    )


def test_recommend_for_programs(semroute: Command, folder: Path) -> None:
    status, out, _ = semroute("recommend", "--json")
    found = json.loads(out)
    assert (status, found["recommended"]["profile"]) == (0, "plain")
    assert found["why"] == "it requires nothing, and no local model server answers"
    assert [fit["profile"] for fit in found["passed_over"]] == ["hybrid"]


def test_recommend_strictly(semroute: Command, folder: Path) -> None:
    """With --strict what requires nothing is no answer: status 1, and what each lacks."""
    status, out, err = semroute("recommend", "--strict")
    assert (status, out) == (1, "")
    assert "hybrid lacks a GPU of type ZX80" in err
    assert "plain lacks a local model server that answers (--strict)" in err
    status, out, _ = semroute("recommend", "--strict", "--json")
    assert (status, json.loads(out)["recommended"]) == (1, None)


def test_show_for_people(semroute: Command, folder: Path) -> None:
    """Models with where they run, rows by tier with where data may go, and the limits of cost."""
    status, out, err = semroute("show", "hybrid")
    assert (status, err) == (0, "")
    models, rows = (
        [line.split() for line in part.splitlines()[2:]]
        for part in out.partition("\nmodels\n")[2].split("\nrows\n")
    )
    assert models[0][:4] == ["coder", "local", "gpu", "32768"]
    assert models[1][:3] == ["cloud", "cloud", "deepseek"]
    assert models[1][-1] == "deepseek-chat"
    table = words(out.partition("\nrows\n")[2])
    assert "code_generation low coder cloud may go to deepseek" in table
    assert "medium, high cloud, coder -" in table
    assert "biomedical any coder - stays in the building: May hold sample IDs" in table
    assert "default any coder - stays in the building governance" in table
    assert rows[0][0] == "code_generation"
    assert "most USD a request: no limit\n  most USD a month: 50\n" in out


def test_show_for_programs(semroute: Command, folder: Path) -> None:
    """With --json the profile is there as plain data; money is in USD."""
    status, out, _ = semroute("show", "hybrid", "--json")
    shown = json.loads(out)
    assert (status, shown["name"], shown["cost"]["monthly"]) == (0, "hybrid", 50.0)
    assert shown["models"]["cloud"]["price"] == {"input": 0.14, "output": 0.28}
    assert shown["models"]["coder"]["backend"]["provider"] == "vllm"
    assert shown["rows"]["code_generation"]["medium"] == ["cloud", "coder"]
    assert shown["rows"]["biomedical"]["allow_cloud"] is False
    assert shown["hardware"]["gpu_types"] == ["ZX80"]


def test_show_shows_no_less_than_the_file(semroute: Command, folder: Path) -> None:
    """A profile is shown by its file, too, wherever that lies, even beside a broken one."""
    (folder / "profiles" / "broken.yaml").write_text("models: {a: b\nroutes: [", encoding="utf-8")
    (folder / "profiles" / "plain.yaml").rename(folder / "mine.yml")
    assert semroute("show", "mine.yml")[0] == 0
    assert semroute("show", "spare")[0] == 0
    status, _, err = semroute("show", "broken")
    assert status == 1
    assert "profiles/broken.yaml:2: is not valid YAML" in err


@pytest.mark.parametrize("command", ["show", "check", "diff"])
def test_an_unknown_profile_is_told(semroute: Command, folder: Path, command: str) -> None:
    """With the name that was probably meant."""
    names = ("hybird",) if command != "diff" else ("plain", "hybird")
    status, out, err = semroute(command, *names)
    message = 'profiles: there is no profile "hybird"; did you mean "hybrid"?'
    assert status == 1
    assert message in out + err


@pytest.mark.parametrize("name", ["t4_hybrid", "l4_t4_combined", "h100_local", "cloud_only"])
def test_the_shipped_ones_for_programs(semroute: Command, folder: Path, name: str) -> None:
    """Launch recipes and all, each is plain JSON, and so is what parts it from another."""
    status, out, err = semroute("show", name, "--json", "--profiles", SHIPPED)
    assert (status, err) == (0, "")
    assert json.loads(out)["models"]
    status, out, err = semroute("diff", name, "development", "--json", "--profiles", SHIPPED)
    assert (status, err) == (0, "")
    parts = {difference["part"] for difference in json.loads(out)["differences"]}
    assert {"models", "rows", "hardware"} <= parts


@pytest.mark.parametrize("command", ["list", "recommend"])
def test_a_wrong_file_is_told(semroute: Command, folder: Path, command: str) -> None:
    """Where all profiles count, a mistake in one is told with its place."""
    write_files(folder / "profiles", {"bad": {**ECHO_PROFILE, "nope": 1}})
    status, out, err = semroute(command)
    assert (status, out) == (1, "")
    assert "profiles/bad.yaml" in err
    assert "nope: unknown key" in err


def test_check_one(semroute: Command, folder: Path) -> None:
    """It is read with the tasks, and governance is proved of it; others do not matter."""
    write_files(folder / "profiles", {"bad": {"models": {}, "routes": {}}})
    status, out, err = semroute("check", "hybrid")
    assert (status, err) == (0, "")
    assert "governance: hybrid: proved for 3 rows" in out
    assert out.endswith("all is well: 1 profiles, 2 tasks, 7 utterances\n")
    status, out, _ = semroute("check", "profiles/bad.yaml", "--json")
    assert status == 1
    assert any("profiles/bad.yaml" in problem for problem in json.loads(out)["problems"])


def test_diff_for_people(semroute: Command, folder: Path) -> None:
    """What differs is told in words, part by part, and what does not is not."""
    other = json.loads(json.dumps(HYBRID))
    other["routes"]["biomedical"] = {"model": "coder"}
    other["models"]["extra"] = {"backend": "gpu", "id": "Extra"}
    other["cost"] = {"monthly_limit": 20.0, "max_per_request": 0.5}
    del other["routes"]["code_generation"]
    write_files(folder / "profiles", {"other": other})
    status, out, err = semroute("diff", "hybrid", "other")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "models",
        "  extra: only in other",
        "rows",
        "  code_generation: only in hybrid",
        "  biomedical, may leave the building: no in hybrid; yes in other",
        "  biomedical, fallbacks may leave the building: no in hybrid; yes in other",
        "  biomedical, why it stays: May hold sample IDs in hybrid; - in other",
        "cost",
        "  most USD a request: - in hybrid; 0.5 in other",
        "  most USD a month: 50 in hybrid; 20 in other",
    ]


def test_diff_of_what_says_the_same(semroute: Command, folder: Path) -> None:
    """One model for a row, and the same for each tier, are one thing."""
    tiers = {"low": ["echo"], "medium": ["echo"], "high": ["echo"]}
    write_files(
        folder / "profiles", {"same": {**ECHO_PROFILE, "routes": {"default": {"tiers": tiers}}}}
    )
    assert semroute("diff", "spare", "same") == (0, "spare and same say the same\n", "")
    status, out, _ = semroute("diff", "spare", "plain", "--json")
    assert (status, json.loads(out)) == (
        0,
        {
            "first": "spare",
            "second": "plain",
            "differences": [
                {"part": "hardware", "path": ["rank"], "first": None, "second": 90},
            ],
        },
    )


async def test_activate_switches_a_running_server(tmp_path: Path) -> None:
    """The server goes on with the profile that was named; one it does not have is told."""
    program = (sys.executable, "-m", "semroute_service.cli", "profile", "activate")
    async with (
        running_server(profiles={"a": ECHO_PROFILE, "b": ECHO_PROFILE}, active="a") as server,
        RouterClient(server.address) as client,
    ):
        at = ("--server", server.address)
        done = await run(*program, "b", *at, cwd=tmp_path)
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith("b is active (revision ")
        assert (await client.decide("hello")).profile == "b"
        wrong = await run(*program, "c", *at, cwd=tmp_path)
        assert (wrong.status, wrong.out) == (1, "")
        assert 'there is no profile "c"; loaded: a, b' in wrong.err
        back = await run(*program, "a", *at, "--json", cwd=tmp_path)
        assert (json.loads(back.out)["name"], json.loads(back.out)["active"]) == ("a", True)
        assert (await client.decide("hello")).profile == "a"


def test_activate_without_a_server(semroute: Command) -> None:
    """Where none answers, that is said, with what to do."""
    address = nobody().removeprefix("http://").removesuffix("/v1")
    status, _, err = semroute("activate", "b", "--server", address)
    assert status == 1
    assert f"no server answers at {address}" in err
