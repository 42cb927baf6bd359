"""The README's own commands and snippets, run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from processes import run
from semroute_classifier.utterances import load_utterances
from semroute_service.profile import load_profile
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:50051"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every ``semroute`` command that asks a server or reads files."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("semroute ")]
    return [words[1:] for words in found if words[1] != "serve"]


async def run_at(words: Sequence[str], folder: Path, address: str) -> tuple[int, str]:
    """Run a command in ``folder`` against the server at ``address``."""
    env = {**os.environ, "SEMROUTE_ADDRESS": address, "SEMROUTE_ENCODER": "hashing"}
    ended = await run(*words, cwd=folder, env=env)
    return ended.status, ended.out + ended.err


@pytest.mark.parametrize("words", commands(), ids=" ".join)
async def test_every_command_of_the_readme_runs(
    words: list[str], tmp_path: Path, kept: Path
) -> None:
    """Each command exits 0 against a running server, from the root of a clone."""
    (tmp_path / "queries.jsonl").write_text('{"query": "write a python script"}\n"hello there"\n')
    for name in ("profiles", "utterances", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    async with running_server(
        profiles=ROOT / "profiles",
        utterances=ROOT / "utterances",
        active="development",
        home=kept,
    ) as server:
        program = [sys.executable, "-m", "semroute_service.cli", *words]
        status, output = await run_at(program, tmp_path, server.address)
    assert status == 0, output
    assert output


async def test_the_python_snippet_runs(tmp_path: Path, kept: Path) -> None:
    """The Python example works as written, but for the port, and shows a denial."""
    async with running_server(
        profiles=ROOT / "profiles",
        utterances=ROOT / "utterances",
        active="development",
        home=kept,
    ) as server:
        (snippet,) = blocks("python")
        assert ADDRESS in snippet
        file = tmp_path / "snippet.py"
        file.write_text(snippet.replace(ADDRESS, server.address), encoding="utf-8")
        status, output = await run_at([sys.executable, str(file)], tmp_path, server.address)
    assert status == 0, output
    assert "You said: Write a function that parses a FASTA file" in output
    assert "NO_COMPLIANT_MODEL [('deepseek-v3', 'local_only')]" in output


def test_the_profile_and_the_utterance_file_of_the_readme_load(tmp_path: Path) -> None:
    """Both YAML examples are accepted under the names they give."""
    for block in blocks("yaml"):
        path = re.match(r"# (profiles|utterances)/(\w+\.yaml)", block)
        assert path
        file = tmp_path / path[1] / path[2]
        file.parent.mkdir()
        file.write_text(block, encoding="utf-8")
    profile = load_profile(tmp_path / "profiles" / "office.yaml")
    assert profile.routes["biomedical"].local_only_reason == "May hold sample IDs"
    assert load_utterances(tmp_path / "utterances").tasks == ("contracts",)


def test_every_link_of_the_papers_leads_somewhere() -> None:
    """Relative links in the Markdown files name files that exist."""
    for paper in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("clients/*/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", paper.read_text(encoding="utf-8")):
            assert (paper.parent / link).exists(), f"{paper.name}: {link}"
