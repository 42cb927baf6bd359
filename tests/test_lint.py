"""Doubts about utterances: each kind found where it is, and none where all is well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from semroute_classifier.encoders import HashingEncoder
from semroute_classifier.lint import Finding, Level, lint, normalised
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet, load_utterances
from semroute_service.cli import main
from semroute_service.testing import write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from semroute_classifier.encoders import Vectors

    Command = Callable[..., tuple[int, str, str]]


def found(utterances: Sequence[Utterance], vectors: Vectors, fewest: int = 1) -> list[Finding]:
    return lint(UtteranceSet(tuple(utterances)), vectors, fewest=fewest)


def apart(count: int) -> Vectors:
    """As many vectors, none like another."""
    return np.eye(count, dtype=np.float32)


def turned(*degrees: float) -> Vectors:
    """Unit vectors of the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# ---- repetition


def test_a_text_in_two_tasks_is_an_error() -> None:
    """Case, spaces and closing marks apart the same text teaches two tasks: it contradicts."""
    rows = [Utterance("Sort  this list.", "a", line=3), Utterance("sort this LIST", "b", line=5)]
    (finding,) = found(rows, apart(2))
    assert (finding.level, finding.rule, finding.task) == (Level.ERROR, "contradiction", "b")
    assert (finding.utterance, [match.utterance for match in finding.others]) == (
        rows[1],
        [rows[0]],
    )
    assert finding.message == "the same text stands in a, too; keep it in one of the two"


def test_a_text_twice_in_a_task_is_a_warning() -> None:
    """It says nothing new; where the tiers differ, the message says so."""
    rows = [Utterance("sort", "a", Tier.LOW), Utterance("Sort!", "a", Tier.LOW)]
    (finding,) = (f for f in found(rows, apart(2)) if f.utterance)
    assert (finding.level, finding.rule) == (Level.WARNING, "repeated")
    rows[1] = Utterance("Sort!", "a", Tier.HIGH)
    (finding,) = (f for f in found(rows, apart(2)) if f.utterance)
    assert finding.message == "the same text stands under low, too; keep it in one tier"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Fix it?", "fix it", True),
        ("ﬁx it", "fix it", True),
        ("直して。", "直して", True),
        ("write it in C", "write it in C++", False),
        ("?", "!", False),
    ],
)
def test_texts_are_the_same_where_only_their_looks_differ(one: str, other: str, same: bool) -> None:
    """Marks inside or of meaning keep texts apart."""
    assert (normalised(one) == normalised(other)) is same


@pytest.mark.parametrize(
    ("task", "rule"), [("a", "near_repeated"), ("b", "near_contradiction")], ids=["one", "two"]
)
def test_near_texts_are_a_warning(task: str, rule: str) -> None:
    """Ten degrees apart is a cosine of 0.985: nearly the same, said once for each pair."""
    rows = [Utterance("one", "a"), Utterance("two", task), Utterance("three", "b")]
    findings = found(rows, turned(0, 10, 90))
    (finding,) = (f for f in findings if f.rule.startswith("near"))
    assert (finding.level, finding.rule) == (Level.WARNING, rule)
    assert finding.others[0].similarity == pytest.approx(0.985, abs=0.001)
    assert not any(
        f.rule.startswith("near")
        for f in lint(UtteranceSet(tuple(rows)), turned(0, 10, 90), near=0.99, fewest=1)
    )


# ---- neighbours


def crowd(odd: str) -> tuple[list[Utterance], Vectors]:
    """Two crowds of twelve at right angles; one more utterance of task ``odd`` among the first."""
    rows = [Utterance(f"{task}{i}", task) for task in ("a", "b") for i in range(12)]
    degrees = [*np.linspace(0, 20, 12), *np.linspace(90, 110, 12), 10.5]
    return [*rows, Utterance("odd", odd)], turned(*degrees)


def test_an_utterance_among_those_of_another_task_is_found() -> None:
    """All its neighbours say another task: surely a mistake, and its nearest are shown."""
    findings = lint(UtteranceSet(tuple(crowd("b")[0])), crowd("b")[1], near=2, fewest=1)
    (finding,) = findings
    assert (finding.level, finding.rule, finding.utterance) == (
        Level.WARNING, "outvoted", Utterance("odd", "b"),
    )  # fmt: skip
    assert finding.message.startswith("its neighbours say a (")
    assert {match.utterance.task for match in finding.others} == {"a"}
    similarities = [match.similarity for match in finding.others]
    assert similarities == sorted(similarities, reverse=True)


def test_an_utterance_among_its_own_is_not_found() -> None:
    """The same place with the right task raises no doubt."""
    rows, vectors = crowd("a")
    assert lint(UtteranceSet(tuple(rows)), vectors, near=2, fewest=1) == []


def test_a_task_of_three_is_not_outvoted() -> None:
    """A few utterances cannot be their own neighbours; that the task is thin says it already."""
    rows, vectors = crowd("c")
    assert lint(UtteranceSet(tuple(rows)), vectors, near=2, fewest=1) == []


def test_the_most_outvoted_come_first() -> None:
    """An utterance between both crowds is outvoted less than one in the midst of the other."""
    rows, vectors = crowd("b")
    rows.append(Utterance("between", "b"))
    vectors = np.vstack([vectors, turned(42)])
    findings = lint(UtteranceSet(tuple(rows)), vectors, near=2, fewest=1)
    assert [f.utterance.text for f in findings if f.utterance][:2] == ["odd", "between"]


# ---- tasks and tiers


def test_thin_tasks_are_a_warning() -> None:
    """A task with fewer utterances than it should have is told, with both numbers."""
    rows = [Utterance(str(i), "a" if i < 3 else NONE) for i in range(9)]
    vectors = turned(0, 20, 40, 150, 170, 190, 210, 230, 250)
    findings = lint(UtteranceSet(tuple(rows)), vectors, fewest=5)
    assert [(f.rule, f.task, f.message) for f in findings] == [
        ("thin", "a", "has 3 utterances; 5 or more serve better")
    ]


@pytest.mark.parametrize(
    ("low", "medium", "high", "message"),
    [
        (2, 2, 2, None),
        (8, 2, 2, None),
        (9, 2, 2, "has tiers of very different size: 9 low, 2 medium, 2 high"),
        (2, 0, 2, "has no utterance that is medium"),
        (0, 0, 2, "has no utterance that is low or medium"),
        (0, 0, 0, None),
    ],
)
def test_tiers_are_counted(low: int, medium: int, high: int, message: str | None) -> None:
    """A tier that is missing or far smaller than another is told; a task may have none."""
    tiers = [Tier.LOW] * low + [Tier.MEDIUM] * medium + [Tier.HIGH] * high
    rows = [Utterance(str(i), "a", tier) for i, tier in enumerate(tiers)] or [Utterance("0", "a")]
    found_messages = [f.message for f in found(rows, apart(len(rows)))]
    assert found_messages == ([message] if message else [])


def test_one_utterance_is_enough_to_check() -> None:
    """The smallest set there can be has no neighbours, and raises no error."""
    assert [f.rule for f in found([Utterance("one", "a")], apart(1), fewest=2)] == ["thin"]


def test_the_worst_come_first() -> None:
    """Errors stand before warnings."""
    rows = [Utterance("x", "a"), Utterance("x", "a"), Utterance("x", "b")]
    levels = [f.level for f in found(rows, apart(3), fewest=5)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == Level.ERROR


# ---- the command

BAD = {
    "a": {"low": ["sort a list of names", "count the words"], "medium": ["Count the words."]},
    "b": {"utterances": ["translate this letter", "Sort a list of names!"]},
}


@pytest.fixture
def semroute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command of ``utterances`` in a folder with bad ones; status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMROUTE_HOME", str(tmp_path / "home"))
    write_files(tmp_path / "utterances", BAD)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["utterances", *arguments])
        return (status, *capsys.readouterr())

    return run


def test_lint_tells_file_and_line(semroute: Command, tmp_path: Path) -> None:
    """Each finding starts with the file and line where its text stands, and names the other's."""
    status, out, err = semroute("lint", "--encoder", "hashing")
    assert (status, err) == (1, "")
    lines = (tmp_path / "utterances" / "b.yaml").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "Sort a list" in line)
    assert out.startswith(f"error: utterances/b.yaml:{number}: the same text stands in a, too")
    lines = (tmp_path / "utterances" / "a.yaml").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "sort a list" in line)
    assert f"  1.00  utterances/a.yaml:{number}: sort a list of names\n" in out
    assert "warning: utterances/a.yaml: has no utterance that is high\n" in out
    assert out.splitlines()[-1].startswith("1 errors, ")


def test_lint_for_programs(semroute: Command) -> None:
    """With --json every finding has level, rule, file, line and the others."""
    status, out, _ = semroute("lint", "--encoder", "hashing", "--json")
    told = json.loads(out)
    assert (status, told["utterances"], told["errors"]) == (1, 5, 1)
    first = told["findings"][0]
    assert (first["level"], first["rule"]) == ("error", "contradiction")
    assert first["file"] == "utterances/b.yaml"
    assert first["others"][0]["utterance"] == "sort a list of names"
    assert {f["line"] for f in told["findings"] if f["rule"] == "thin"} == {None}


def test_strict_makes_warnings_fail(semroute: Command, tmp_path: Path) -> None:
    """Thin tasks alone are status 0, and with --strict status 1; without a doubt both are 0."""
    good = {"a": ["sort a list of names"], "b": ["translate this letter"]}
    write_files(tmp_path / "good", good)
    assert semroute("lint", "good", "--encoder", "hashing")[0] == 0
    assert semroute("lint", "good", "--encoder", "hashing", "--strict")[0] == 1
    status, out, _ = semroute("lint", "good", "--encoder", "hashing", "--strict", "--fewest", "1")
    assert (status, out) == (0, "0 errors, 0 warnings, 0 notes on 2 utterances\n")


def test_lint_tells_what_cannot_be_read(semroute: Command) -> None:
    """A folder or an encoder that is not there ends it with status 1 and a sentence."""
    status, out, err = semroute("lint", "nowhere", "--encoder", "hashing")
    assert (status, out, err) == (1, "", "semroute: nowhere: is not a folder\n")
    assert "is not a folder" in semroute("lint", "--encoder", "./nowhere")[2]


def test_show_counts(semroute: Command) -> None:
    """Each task has a row with its tiers' counts, for people and for programs."""
    status, out, _ = semroute("show")
    assert status == 0
    assert [line.split()[:5] for line in out.splitlines()[2:4]] == [
        ["a", "3", "2", "1", "-"],
        ["b", "2", "-", "-", "-"],
    ]
    rows = json.loads(semroute("show", "--json")[1])["tasks"]
    assert [(row["task"], row["utterances"], row["low"]) for row in rows] == [
        ("a", 3, 2),
        ("b", 2, 0),
    ]


def test_utterances_know_their_lines(tmp_path: Path) -> None:
    """Every utterance that is loaded has the line on which its text starts."""
    path = tmp_path / "a.yaml"
    path.write_text('description: x\nlow:\n  - one\n\n  - "two"\nhigh: [three,\n  four]\n')
    lines = {u.text: u.line for u in load_utterances(tmp_path).utterances}
    assert lines == {"one": 3, "two": 5, "three": 6, "four": 7}


def test_the_encoder_of_the_tests_is_real() -> None:
    """What stands twice is found by real vectors, too."""
    rows = [Utterance("sort the list of names", "a"), Utterance("sort the list of names now", "b")]
    vectors = HashingEncoder().encode([u.text for u in rows])
    findings = lint(UtteranceSet(tuple(rows)), vectors, near=0.8, fewest=1)
    assert "near_contradiction" in [f.rule for f in findings]
