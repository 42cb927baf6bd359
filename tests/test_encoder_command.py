"""``semroute encoder``: what it lists, builds, verifies and times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models import make_tiny_model
from semroute_classifier.encoders.engine import OnnxEncoder
from semroute_service.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def home(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the tiny model's engines are built."""
    home = tmp_path_factory.mktemp("home")
    assert main(["encoder", "build", str(tiny), "--home", str(home)]) == 0
    return home


@pytest.fixture
def encoder(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of the group; returns its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["encoder", *(str(argument) for argument in arguments)])
        return (status, *capsys.readouterr())

    return run


def test_building_tells_its_steps_and_no_more(tiny: Path, tmp_path: Path) -> None:
    """A person sees what is done and how long it took; no library speaks up between."""
    command = [sys.executable, "-m", "semroute_service.cli", "encoder", "build", str(tiny)]
    done = subprocess.run(
        [*command, "--home", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    lines = done.stderr.splitlines()
    known = (f"engine of {tiny}: ", f"static encoder of {tiny}: ")
    assert [line for line in lines if not line.startswith(known)] == []
    assert any("quantise" in line for line in lines)
    result = json.loads(done.stdout)
    assert result["built"]
    assert result["engines"].keys() == {"float32", "int8"}
    assert OnnxEncoder("tiny", Path(result["folder"])).encode(["hi"]).shape[0] == 1


def test_what_is_built_is_not_built_again(encoder: Command, tiny: Path, home: Path) -> None:
    """Building twice costs nothing and says where the engines lie; --again builds anew."""
    status, out, _ = encoder("build", tiny, "--home", home)
    assert status == 0
    assert "kept since before" in out
    (folder,) = (home / "encoders").iterdir()
    made = (folder / "engine.json").stat().st_mtime_ns
    status, out, _ = encoder("build", tiny, "--home", home, "--again", "--json")
    assert (status, json.loads(out)["built"]) == (0, True)
    assert (folder / "engine.json").stat().st_mtime_ns > made


def test_the_list_shows_what_is_named_and_what_is_kept(
    encoder: Command, tiny: Path, home: Path
) -> None:
    """Encoders without engines stand in it too, and kept ones with size and cosine."""
    status, out, _ = encoder("list", "--home", home, "--json")
    assert status == 0
    rows = {row["encoder"]: row for row in json.loads(out)["encoders"]}
    assert rows.keys() == {"auto", "bundled", "hashing", str(tiny)}
    assert rows["bundled"] == {"encoder": "bundled", "is": "not built yet", "engines": {}}
    kept = rows[str(tiny)]["engines"]
    assert kept["int8"]["bytes"] < kept["float32"]["bytes"]
    assert kept["int8"]["vector_min"] >= 0.97
    status, out, _ = encoder("list", "--home", home)
    assert status == 0
    assert "not built yet" in out
    assert "int8 " in out


def test_the_list_of_an_empty_home_is_no_error(encoder: Command, tmp_path: Path) -> None:
    """Before anything was built there is something to learn from it."""
    status, out, _ = encoder("list", "--home", tmp_path / "none")
    assert status == 0
    assert "bundled" in out


def test_verifying_compares_with_the_original(encoder: Command, tiny: Path, home: Path) -> None:
    """Every engine is as like the original as it was when it was built."""
    status, out, _ = encoder("verify", tiny, "--home", home, "--json")
    assert status == 0
    results = {result["precision"]: result for result in json.loads(out)["engines"]}
    assert results["float32"]["blocks_min"] >= 0.9999
    assert all(result["alike"] for result in results.values())


def test_verifying_finds_an_engine_of_another_model(
    encoder: Command, tiny: Path, home: Path, tmp_path: Path
) -> None:
    """Weights that are not the original's make the status 1, and the table says where."""
    other = make_tiny_model(tmp_path, spread=0.1)
    assert encoder("build", other, "--home", tmp_path)[0] == 0
    (mine,), (kept,) = (home / "encoders").iterdir(), (tmp_path / "encoders").iterdir()
    (tmp_path / "wrong" / "encoders").mkdir(parents=True)
    kept.rename(tmp_path / "wrong" / "encoders" / mine.name)
    status, out, _ = encoder("verify", tiny, "--home", tmp_path / "wrong")
    assert status == 1
    assert out.count("NO") == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_timing_covers_every_engine_and_the_original(
    encoder: Command, tiny: Path, home: Path, as_json: bool
) -> None:
    """Each has a time for short and for medium queries; the medium ones are longer."""
    flags = ["--json"] if as_json else []
    status, out, _ = encoder("bench", tiny, "--home", home, "--rounds", 1, *flags)
    assert status == 0
    if not as_json:
        assert all(f"\n{name} " in out for name in ("int8", "float32", "torch"))
        return
    results = json.loads(out)["results"]
    assert {result["runs_in"] for result in results} == {"int8", "float32", "torch"}
    for result in results:
        assert 2 * result["short"]["tokens"] < result["medium"]["tokens"]
        assert 0 < result["short"]["p50_ms"] <= result["short"]["p95_ms"]


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_what_is_not_built_says_how_to_build_it(
    encoder: Command, command: str, tiny: Path, tmp_path: Path
) -> None:
    """Nothing is built on the way, because that may take minutes."""
    status, _, err = encoder(command, tiny, "--home", tmp_path)
    assert status == 1
    assert f"semroute encoder build {tiny}" in err


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_damaged_engine_is_told_of(
    encoder: Command, command: str, tiny: Path, home: Path, tmp_path: Path
) -> None:
    """Its folder is named, as is what is wrong in it."""
    shutil.copytree(home / "encoders", tmp_path / "encoders")
    (weights,) = tmp_path.glob("encoders/*/int8/weights")
    os.truncate(weights, 1000)
    status, _, err = encoder(command, tiny, "--home", tmp_path)
    assert status == 1
    assert f"{weights.parents[1]} is damaged: int8/weights" in err


@pytest.mark.parametrize("command", ["build", "verify", "bench"])
@pytest.mark.parametrize("spec", ["hashing", "/no/such/folder"])
def test_what_is_no_model_is_refused(
    encoder: Command, command: str, spec: str, tmp_path: Path
) -> None:
    """The message names what was given."""
    status, _, err = encoder(command, spec, "--home", tmp_path)
    assert status == 1
    assert f'"{spec}"' in err


@pytest.mark.parametrize("command", ["", "list", "build", "verify", "bench"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help says what it does and where engines are kept."""
    with pytest.raises(SystemExit) as caught:
        main(["encoder", *([command] if command else []), "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "engine" in out
    assert "--home" in out if command else "examples:" in out
