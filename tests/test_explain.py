"""``explain``: one query's verdict with its evidence, without a server."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from semroute_service.cli import main
from semroute_service.testing import UTTERANCES, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., tuple[int, str, str]]

KNOWN = str(UTTERANCES["code_generation"]["low"][0])
UNKNOWN = "zzyzx qqq"


@pytest.fixture
def explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Explains a query by the utterances of the working directory; status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMROUTE_HOME", str(tmp_path / "home"))
    write_files(tmp_path / "utterances", UTTERANCES)

    def run(query: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["explain", query, "--encoder", "hashing", *arguments])
        return (status, *capsys.readouterr())

    return run


def told(output: str) -> dict[str, str]:
    """The lines above the tables by their names."""
    lines = output.split("\n\n")[0].splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_a_query_that_is_an_utterance_is_matched(explain: Command) -> None:
    """The verdict, why it was matched, and the utterance itself as the nearest evidence."""
    status, out, err = explain(KNOWN)
    assert (status, err) == (0, "")
    lines = told(out)
    assert lines["task"] == "code_generation"
    assert lines["tier"] == "low"
    assert lines["basis"].startswith("matched: code_generation is likelier")
    assert lines["encoder"].startswith("hashing")
    assert lines["took"].split()[1] == "ms,"
    nearest = out.split("nearest utterances\n")[1].splitlines()[2]
    assert nearest.split(maxsplit=3) == ["1.00", "code_generation", "low", KNOWN]


def test_odds_are_bars_that_fill_one(explain: Command) -> None:
    """Each label has its share and a bar as long; the shares sum to 1, the likeliest is first."""
    _, out, _ = explain(KNOWN)
    rows = [line.split() for line in out.split("\nodds\n")[1].split("\n\n")[0].splitlines()]
    shares = [float(next(cell for cell in row if cell.endswith("%"))[:-1]) for row in rows]
    assert rows[0][0] == "code_generation"
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares[0] == max(shares)
    assert len(rows[0][2]) == pytest.approx(30 * shares[0] / 100, abs=1)


def test_a_query_near_to_nothing_is_defaulted(explain: Command) -> None:
    """It has no task; what the best would be is said, and which threshold it missed."""
    status, out, _ = explain(UNKNOWN)
    lines = told(out)
    assert status == 0
    assert lines["task"].startswith("none of them; the best would be ")
    assert lines["tier"].startswith("-; it would be ")
    assert lines["basis"].startswith("defaulted: the nearest utterance, at ")


def test_explain_for_programs(explain: Command) -> None:
    """With --json the verdict, its reason, the odds, the evidence and the time are one object."""
    verdict = json.loads(explain(KNOWN, "--json")[1])
    assert (verdict["task"], verdict["tier"], verdict["matched"]) == (
        "code_generation",
        "low",
        True,
    )
    assert max(verdict["odds"], key=verdict["odds"].get) == "code_generation"
    assert sum(verdict["odds"].values()) == pytest.approx(1, abs=0.001)
    first = verdict["matches"][0]
    assert (first["utterance"], first["task"], first["similarity"]) == (KNOWN, "code_generation", 1)
    assert first["line"] > 0
    assert verdict["elapsed_ms"] > 0
    unknown = json.loads(explain(UNKNOWN, "--json")[1])
    assert (unknown["task"], unknown["tier"], unknown["matched"]) == (None, None, False)
    assert unknown["matches"][0]["similarity"] < unknown["least_similarity"]


def test_what_is_out_of_scope_by_example_is_defaulted(explain: Command, tmp_path: Path) -> None:
    """A query that is an example of none names the examples as the reason."""
    write_files(tmp_path / "utterances", {"none": ["what is for lunch", "sing me a song"]})
    verdict = json.loads(explain("sing me a song", "--json")[1])
    assert (verdict["task"], verdict["why"]) == (
        None, "the out-of-scope examples outweigh every task",
    )  # fmt: skip


def test_the_query_may_come_from_standard_input(
    explain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """- reads it; the verdict is the same as of the query as an argument."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(KNOWN))

    def verdict(query: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(explain(query, "--json")[1])
        return {key: row[key] for key in ("query", "task", "odds", "matches")}

    assert verdict("-") == verdict(KNOWN)


def test_what_is_wrong_is_told(explain: Command) -> None:
    """An empty query is wrong usage; a folder that is not there is told by its name."""
    assert explain("  ")[::2] == (2, "semroute: give a query that is not empty\n")
    status, out, err = explain(KNOWN, "--utterances", "nowhere")
    assert (status, out, err) == (1, "", "semroute: nowhere: is not a folder\n")
