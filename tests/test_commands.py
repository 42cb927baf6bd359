"""The commands that work on files, every command's help, and ``make`` and CI around them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from semroute_service.cli import main
from semroute_service.governance import RULES
from semroute_service.testing import ECHO_PROFILE, UTTERANCES, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("serve", "decide", "complete", "check", "init", "evaluate", "demo", "detect", "status"),
    *("session", "profile", "providers", "backends", "servers", "utterances", "explain", "encoder"),
    "fault-server",
)
FIGURES = {
    *("n", "accuracy", "lenient_accuracy", "coverage", "selective_accuracy"),
    *("abstain_precision", "abstain_recall", "auroc", "tier_accuracy", "tier_macro_f1", "ece"),
    *("static_share", "static_slip"),
    *("latency_ms", "confusion", "encoder", "utterances_revision", "build_seconds"),
}


@pytest.fixture
def semroute(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; returns its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which has a right profile and right utterances."""
    write_files(tmp_path / "profiles", {"mine": ECHO_PROFILE})
    write_files(tmp_path / "utterances", UTTERANCES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_command_shows_the_help(semroute: Command) -> None:
    """Without a command the help is shown, every command in it, and the status is 2."""
    status, out, err = semroute()
    assert (status, err) == (2, "")
    assert all(re.search(rf"^    {command}\s+\w", out, re.MULTILINE) for command in COMMANDS)
    assert "examples:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows how a command is used, and the status is 0."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: semroute {command}")


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does not exist is wrong usage, and the message names those that do."""
    with pytest.raises(SystemExit) as ended:
        main(["serv"])
    assert ended.value.code == 2
    assert "'serve', 'decide'" in capsys.readouterr().err


def test_check_finds_all_well(semroute: Command, folder: Path) -> None:
    """Right files, found in the working directory, are counted; too few texts are a warning."""
    status, out, err = semroute("check")
    *warnings, last = out.splitlines()
    assert (status, err) == (0, "")
    assert last == "all is well: 1 profiles, 2 tasks, 7 utterances"
    assert "warning: task biomedical has only 2 utterances; 10 or more serve better" in warnings


def test_check_reports_every_mistake(semroute: Command, folder: Path) -> None:
    """Mistakes in profiles and utterances are told together, each with file, line and key."""
    bad = {"models": {"echo": {"provider": "echo"}}, "routes": {"default": {"modle": "echo"}}}
    write_files(folder / "profiles", {"bad": bad, "worse": {"nmae": "worse"}})
    write_files(folder / "utterances", {"code_generation": {"lo": ["write"]}})
    status, out, err = semroute("check")
    lines = out.splitlines()
    assert (status, err) == (1, f"semroute: {len(lines)} to mend\n")
    assert all(re.match(r"error: (profiles|utterances)/\w+\.yaml:\d+: \S+: ", x) for x in lines)
    assert {line.split(":")[1].strip() for line in lines} == {
        *("profiles/bad.yaml", "profiles/worse.yaml", "utterances/code_generation.yaml"),
    }


def test_check_warns(semroute: Command, folder: Path) -> None:
    """What is served but surely not meant, such as a row without utterances, is a warning."""
    rows = {"default": {"model": "echo"}, "no_such_task": {"model": "echo"}}
    write_files(folder / "profiles", {"mine": {**ECHO_PROFILE, "routes": rows}})
    status, out, _ = semroute("check")
    assert status == 0
    assert re.search(
        r"^warning: profiles/mine\.yaml:\d+: routes\.no_such_task: ", out, re.MULTILINE
    )


def test_check_for_programs(semroute: Command, folder: Path) -> None:
    """With --json the counts, the problems, the warnings and what is proved are one object."""
    status, out, _ = semroute("check", "--json")
    counts: dict[str, Any] = {"profiles": 1, "tasks": 2, "utterances": 7}
    checked = json.loads(out)
    assert len(checked.pop("warnings")) == 3
    assert checked.pop("rules").keys() == RULES.keys()
    assert checked.pop("governance").keys() == {"mine"}
    assert (status, checked) == (0, {**counts, "problems": []})
    status, out, _ = semroute("check", "--json", "--profiles", "nowhere")
    assert status == 1
    assert json.loads(out)["problems"] == ["nowhere: is not a folder"]


def test_init_gives_a_start(semroute: Command, tmp_path: Path) -> None:
    """The starter files are copied, are right as they are, and are never overwritten."""
    mine = tmp_path / "profiles" / "development.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    status, out, err = semroute("init", tmp_path)
    assert (status, err) == (0, "")
    shipped = [
        p.relative_to(ROOT) for kind in ("profiles", "utterances") for p in (ROOT / kind).iterdir()
    ]
    assert out.startswith(f"{len(shipped) - 1} files made below {tmp_path}; next: semroute check")
    for path in shipped:
        text = "mine" if tmp_path / path == mine else (ROOT / path).read_text(encoding="utf-8")
        assert (tmp_path / path).read_text(encoding="utf-8") == text
    mine.unlink()
    status, out, _ = semroute("init", tmp_path, "--json")
    assert (status, json.loads(out)) == (0, {"made": [str(mine)]})
    folders = [f"--{kind}={tmp_path / kind}" for kind in ("profiles", "utterances")]
    assert semroute("check", *folders)[0] == 0


def test_init_where_it_cannot(semroute: Command, tmp_path: Path) -> None:
    """A place that is a file is told by name."""
    (tmp_path / "file").write_text("")
    status, _, err = semroute("init", tmp_path / "file")
    assert (status, err) == (1, f"semroute: {tmp_path / 'file'}: Not a directory\n")


def examples(folder: Path) -> Path:
    """A query for each utterance."""
    path = folder / "examples.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for task, content in UTTERANCES.items():
            for tier, texts in content.items():
                for text in texts:
                    known = {"tier": tier} if tier != "utterances" else {}
                    file.write(json.dumps({"query": text, "task": task, **known}) + "\n")
    return path


def test_evaluate_for_people(semroute: Command, folder: Path) -> None:
    """Every figure is printed with what it means, and the confusion below."""
    status, out, err = semroute("evaluate", examples(folder), "--encoder", "hashing")
    assert (status, err) == (0, "")
    assert out.startswith("7 queries, 7 utterances, encoder hashing\n")
    for figure in FIGURES - {"n", "latency_ms", "confusion", "encoder", "utterances_revision"}:
        assert re.search(rf"^{figure.removesuffix('_seconds')} +(\d|-)", out, re.MULTILINE)
    assert re.search(r"^  2\. code_generation +\. +3 +\.$", out, re.MULTILINE)


def test_evaluate_for_programs(semroute: Command, folder: Path) -> None:
    """With --json every figure is there."""
    status, out, _ = semroute("evaluate", examples(folder), "--encoder", "hashing", "--json")
    figures = json.loads(out)
    assert (status, figures.keys()) == (0, FIGURES)
    assert (figures["n"], figures["accuracy"], figures["encoder"]) == (7, 1.0, "hashing")
    assert figures["latency_ms"].keys() == {"p50", "p95"}
    assert figures["confusion"]["biomedical"] == {"biomedical": 2}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ('{"query": "hello"}\n', [], "examples.jsonl:1: task must be the name of a task"),
        ('{"query": "a", "task": "b"}\n{"query"', [], "examples.jsonl:2: "),
        ("\n", [], "examples.jsonl: holds no example"),
        ('{"query": "a", "task": "b"}', ["--encoder", "./nowhere"], "is not a folder"),
        ('{"query": "a", "task": "b"}', ["--utterances", "nowhere"], "nowhere: is not a folder"),
    ],
    ids=["no task", "broken", "empty", "encoder", "utterances"],
)
def test_evaluate_tells_what_is_wrong(
    semroute: Command, folder: Path, text: str, arguments: list[str], message: str
) -> None:
    """A file, an encoder or a folder that is wrong ends it with status 1 and a sentence."""
    (folder / "examples.jsonl").write_text(text, encoding="utf-8")
    status, out, err = semroute("evaluate", "examples.jsonl", "--encoder", "hashing", *arguments)
    assert (status, out) == (1, "")
    assert message in err


def test_client_commands_need_the_base_install_only() -> None:
    """To ask a server, nothing that only a server needs is imported."""
    code = "import sys, semroute_service.cli.ask; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"faiss", "httpx", "numpy", "pydantic", "semroute_classifier", "torch", "yaml"}
    assert not heavy & set(loaded.stdout.split())


def test_make_lists_the_commands() -> None:
    """``make`` alone shows each command with what it does."""
    made = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    listed = re.findall(r"^  make ([\w-]+) +\S.+$", made.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


def test_ci_runs_what_a_person_runs() -> None:
    """The gate is executable and is no more than ``make check`` and ``make test``."""
    gate = ROOT / ".ci" / "run"
    assert os.access(gate, os.X_OK)
    lines = gate.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test"]
