"""Which profile a server starts with: named, chosen by the tree, or taken by a person."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from semroute import RouterClient
from semroute_service.cli import main
from semroute_service.testing import ECHO_PROFILE, UTTERANCES, write_files
from terminal import END_OF_INPUT, on_terminal
from test_serve import HERE, PROGRAM, Served, serving
from upstream import profile, upstream

if TYPE_CHECKING:
    from pathlib import Path

NO_SUCH_GPU = {"rank": 10, "gpu_types": ["ZX80"]}
KEY = {"DEEPSEEK_API_KEY": "sk-xyzzy"}
TREE = {"big": NO_SUCH_GPU, "keyed": {"rank": 20, "required_cloud_apis": ["deepseek"]}}


def echo(**hardware: Any) -> dict[str, Any]:
    return {**ECHO_PROFILE, "hardware": hardware}


def write_profiles(folder: Path, **hardware: dict[str, Any]) -> None:
    write_files(folder / "profiles", {name: echo(**what) for name, what in hardware.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with a tree: big wants a GPU that nobody has, keyed a key, plain nothing."""
    write_profiles(tmp_path, **TREE, plain={"rank": 90}, unranked={})
    write_files(tmp_path / "utterances", UTTERANCES)
    return tmp_path


async def active(served: Served) -> str:
    async with RouterClient(await served.address()) as client:
        (name,) = [summary.name for summary in await client.profiles() if summary.active]
    return name


async def test_the_tree_chooses(folder: Path) -> None:
    """Without a name the first that fits is taken, and the log says which, why, and why not the
    others."""
    async with serving(folder, *HERE) as served:
        assert await active(served) == "plain"
        assert "INFO    profile big is not chosen: it requires what is not here: " in served.log
        assert "profile plain is chosen: it requires nothing" in served.log
        assert "unranked" not in served.log


async def test_a_key_makes_the_difference(folder: Path) -> None:
    """With a key in the environment another profile fits; the key is nowhere in the log."""
    async with serving(folder, *HERE, "--log-level", "debug", env=KEY) as served:
        assert await active(served) == "keyed"
        reason = "what it requires is here: the key of DeepSeek (DEEPSEEK_API_KEY)"
        assert f"profile keyed is chosen: {reason}" in served.log
        assert await served.end() == 0
    assert KEY["DEEPSEEK_API_KEY"] not in served.log


@pytest.mark.parametrize("named", ["option", "environment"])
async def test_a_name_wins(folder: Path, named: str) -> None:
    """What is named is served, and what it lacks is a warning that names it."""
    arguments = ("--profile", "big") if named == "option" else ()
    env = {**KEY, **({} if arguments else {"SEMROUTE_PROFILE": "big"})}
    async with serving(folder, *HERE, *arguments, env=env) as served:
        assert await active(served) == "big"
        await served.logs("WARNING profile big: it requires what is not here: a GPU of type ZX80")
        assert await served.end() == 0
    assert "is chosen" not in served.log


async def test_a_name_is_served_while_it_is_still_looking(folder: Path) -> None:
    """A backend that never answers holds up neither the start nor the end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        backends = {"slow": {"provider": "vllm", "url": url}}
        write_files(folder / "profiles", {"big": {**echo(**NO_SUCH_GPU), "backends": backends}})
        async with serving(folder, *HERE, "--profile", "big") as served:
            assert await active(served) == "big"
            assert await served.end() == 0
    assert "Traceback" not in served.log


async def test_a_name_that_fits_is_not_warned_of(folder: Path) -> None:
    """With its requirement met there is nothing to say."""
    async with serving(folder, *HERE, "--profile", "keyed", env=KEY) as served:
        assert await active(served) == "keyed"
        assert await served.end(signal.SIGINT) == 0
    assert "WARNING profile" not in served.log


async def test_where_the_tree_is_silent_the_default_is_taken_by_its_name(folder: Path) -> None:
    """What it lacks is a warning, as of any other that is taken by its name."""
    write_profiles(folder, plain={}, development={"gpu_types": ["ZX80"]})
    async with serving(folder, *HERE) as served:
        assert await active(served) == "development"
        assert "WARNING profile development is chosen: it requires what is not here" in served.log


@pytest.mark.parametrize("switch", ["option", "environment"])
def test_strict_fails_clearly(
    folder: Path,
    switch: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where only a profile that requires nothing would do it ends, and names what each lacks; it
    takes none by its name either."""
    write_profiles(folder, development={"gpu_types": ["ZX80"]})
    monkeypatch.chdir(folder)
    if switch == "environment":
        monkeypatch.setenv("SEMROUTE_STRICT", "1")
    arguments = ("--strict",) if switch == "option" else ()
    assert main(["serve", *HERE, *arguments]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "semroute: no profile fits what is here; name one with --profile, or provide what it "
        "requires",
        "  big lacks a GPU of type ZX80",
        "  keyed lacks the key of DeepSeek (DEEPSEEK_API_KEY)",
        "  plain lacks a local model server that answers (--strict)",
    ]


async def test_strict_takes_a_local_model_server(folder: Path) -> None:
    """With a server of its own that answers, a profile that requires nothing is chosen."""
    async with upstream(models=("m",)) as server:
        mine = {**profile(server), "hardware": {"rank": 90}}
        write_files(folder / "profiles", {"plain": mine})
        async with serving(folder, *HERE, "--strict") as served:
            assert await active(served) == "plain"
            assert "it requires nothing, and first answers" in served.log


def test_nothing_to_choose_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a rank anywhere, and without the default, the names are told."""
    for file in (folder / "profiles").iterdir():
        file.unlink()
    write_profiles(folder, a={}, b={})
    monkeypatch.chdir(folder)
    assert main(["serve", *HERE]) == 1
    assert "so none is chosen by itself; name one: a, b" in capsys.readouterr().err


def test_a_wrong_switch_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word in SEMROUTE_STRICT that is neither yes nor no ends the start."""
    monkeypatch.setenv("SEMROUTE_STRICT", "maybe")
    assert main(["serve", *HERE]) == 2
    assert capsys.readouterr().err == "semroute: SEMROUTE_STRICT must be 1 or 0\n"


@pytest.mark.parametrize(
    ("typed", "name"), [("", "plain"), ("2", "keyed"), ("unranked", "unranked")]
)
async def test_a_person_chooses(folder: Path, typed: str, name: str) -> None:
    """On a terminal the profiles are listed; Enter takes what fits, a number or a name another."""
    async with on_terminal(*PROGRAM, *HERE, cwd=folder) as terminal:
        await terminal.sees("missing: a GPU of type ZX80")
        await terminal.answers("which profile [plain]: ", typed)
        await terminal.sees(f"profile {name} is chosen")
        await terminal.sees("serving on 127.0.0.1:")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.end() == 0


async def test_a_person_who_answers_wrongly_is_asked_again(folder: Path) -> None:
    """What is not in the list is told; the end of the input starts nothing."""
    async with on_terminal(*PROGRAM, *HERE, cwd=folder) as terminal:
        await terminal.answers("which profile [plain]: ", "9")
        await terminal.sees("must be a number from 1 to 4, or a name")
        await terminal.answers("which profile [plain]: ", END_OF_INPUT)
        await terminal.sees("semroute: no profile was chosen")
        assert await terminal.end() == 1
    assert "serving" not in terminal.shown


async def test_a_person_who_names_one_is_not_asked(folder: Path) -> None:
    """With --profile a terminal makes no difference."""
    async with on_terminal(*PROGRAM, *HERE, "--profile", "plain", cwd=folder) as terminal:
        await terminal.sees("serving on 127.0.0.1:")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.end() == 0
    assert "which profile" not in terminal.shown
