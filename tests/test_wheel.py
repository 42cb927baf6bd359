"""What a user installs: the wheel's contents, and the base install as a thin client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from processes import Ended, run

if TYPE_CHECKING:
    from semroute_service.testing import RunningServer

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PACKAGES = {"semroute", "semroute_classifier", "semroute_service"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
IMPORT_ALONE = """
import importlib.util
import semroute
from semroute import RouterClient, SyncRouterClient
from semroute.v1 import profile_pb2_grpc, router_pb2_grpc
heavy = ["faiss", "httpx", "numpy", "pydantic", "torch", "yaml"]
print(semroute.__file__, [name for name in heavy if importlib.util.find_spec(name)])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation")
    _finish(*build, "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment that holds the wheel without extras."""
    environment = tmp_path_factory.mktemp("base") / "venv"
    _finish(sys.executable, "-m", "venv", "--without-pip", environment)
    binaries = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--python", binaries / "python")
    constraints = ("--constraint", CONSTRAINTS) if CONSTRAINTS.exists() else ()
    _finish(*pip, "install", "--quiet", *constraints, wheel)
    return binaries


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Its top level is the three packages and the metadata: no tests, no 'service'."""
    names = _names(wheel)
    (metadata,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert {name.partition("/")[0] for name in names} == PACKAGES | {metadata}
    assert not [name for name in names if "/test_" in name or "/tests/" in name]
    assert f"{metadata}/licenses/LICENSE" in names


def test_the_wheel_holds_types_stubs_and_data(wheel: Path) -> None:
    """Every package is marked typed; stubs, catalogue and all starter files are inside."""
    names = _names(wheel)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for proto in (ROOT / "proto" / "semroute" / "v1").glob("*.proto"):
        stub = f"semroute/v1/{proto.stem}_pb2.py"
        assert {stub, f"{stub}i"} <= names
    assert "semroute_service/profile/providers.yaml" in names
    for kind in ("profiles", "utterances"):
        files = {file.name for file in (ROOT / kind).glob("*.yaml")}
        assert files
        assert {f"semroute_service/starter/{kind}/{name}" for name in files} <= names


async def test_the_base_install_imports_alone(base: Path, tmp_path: Path) -> None:
    """The client imports from the wheel where none of the server's libraries is installed."""
    ended = await _run(tmp_path, base / "python", "-c", IMPORT_ALONE)
    assert ended.status == 0, ended.err
    file, _, heavy = ended.out.strip().partition(" ")
    assert Path(file).is_relative_to(base.parent)
    assert heavy == "[]"


async def test_the_base_install_has_the_command(base: Path, tmp_path: Path) -> None:
    """--help lists the commands and needs nothing more."""
    ended = await _run(tmp_path, base / "semroute", "--help")
    assert (ended.status, ended.err) == (0, "")
    assert "decide" in ended.out
    assert "serve" in ended.out


async def test_the_base_install_decides_and_completes(
    base: Path, tmp_path: Path, echo_server: RunningServer
) -> None:
    """decide prints for people and, with --json, for machines; complete streams the answer."""
    ask = ("write a python script", "--server", echo_server.address)
    people = await _run(tmp_path, base / "semroute", "decide", *ask)
    assert people.status == 0, people.err
    assert "code_generation" in people.out
    machines = await _run(tmp_path, base / "semroute", "decide", *ask, "--json")
    decision = json.loads(machines.out)
    assert decision["model"] == "echo"
    assert decision["classification"]["task"] == "code_generation"
    answer = await _run(tmp_path, base / "semroute", "complete", *ask)
    assert answer.out == "You said: write a python script\n"


async def test_the_base_install_reads_a_refusal(
    base: Path, tmp_path: Path, echo_server: RunningServer
) -> None:
    """An error's reason is read without the package that defines google.rpc."""
    ask = ("hello", "--server", echo_server.address, "--profile", "no_such_profile", "--json")
    ended = await _run(tmp_path, base / "semroute", "decide", *ask)
    assert ended.status == 1
    assert json.loads(ended.out)["error"]["reason"] == "UNKNOWN_PROFILE"


async def test_the_base_install_says_what_serving_needs(base: Path, tmp_path: Path) -> None:
    """serve without the server's libraries names the extra to install, in a plain message."""
    ended = await _run(tmp_path, base / "semroute", "serve")
    assert ended.status == 1
    assert "pip install 'semroute[server]'" in ended.err
    assert "Traceback" not in ended.err


async def _run(folder: Path, *command: str | Path) -> Ended:
    """Run ``command`` away from the clone, so that only the wheel can be imported."""
    return await run(*command, cwd=folder, env=ENVIRONMENT)


def _finish(*command: str | Path) -> None:
    ended = subprocess.run(
        [*map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())
