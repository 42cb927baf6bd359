"""Artifacts that are damaged or from elsewhere: rebuilt, never used, and nothing in them is run."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from semroute_classifier.index import Index
from test_artifacts import TEXTS, assert_equal, build, changed, folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from semroute_classifier.artifacts import Artifact

ARRAYS = ("vectors.npy", "features.npz", "task.npz", "tier.npz", "held_out.npz")
FILES = (*ARRAYS, "manifest.json")
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "halved": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-3],
    "zeros of the right size": lambda content: bytes(len(content)),
    "zeros behind a good beginning": lambda content: content[:128] + bytes(len(content) - 128),
    "a bit turned": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "something else": lambda _: b"<html>not found</html>",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A home with one artifact, to be copied and not to be written, and the artifact."""
    home = tmp_path_factory.mktemp("good")
    return home, build(home)[0]


def assert_rebuilt(home: Path, expected: Artifact) -> None:
    """The artifact is built anew, is as it should be, and is found from then on."""
    again, embedded = build(home)
    assert embedded == len(TEXTS)
    assert_equal(expected, again)
    assert build(home)[1] == 0


def test_the_files_are_those_that_are_damaged_here(good: tuple[Path, Artifact]) -> None:
    """No kind of file escapes the tests below."""
    assert {path.name for path in folders(good[0])[0].iterdir()} == set(FILES)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_artifact_is_rebuilt(
    tmp_path: Path, good: tuple[Path, Artifact], name: str, damage: str
) -> None:
    """A file that is not whole costs a new build, never a failed start or a wrong vector."""
    shutil.copytree(good[0], tmp_path, dirs_exist_ok=True)
    file = folders(tmp_path)[0] / name
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert_rebuilt(tmp_path, good[1])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_rebuilt(tmp_path: Path, good: tuple[Path, Artifact], name: str) -> None:
    """An artifact that lacks a part is built anew and is whole again."""
    shutil.copytree(good[0], tmp_path, dirs_exist_ok=True)
    (folders(tmp_path)[0] / name).unlink()
    assert_rebuilt(tmp_path, good[1])


@pytest.mark.parametrize("name", [*FILES, "every file"])
@pytest.mark.parametrize("what", ["text", "one less"])
def test_a_foreign_file_is_rebuilt(
    tmp_path: Path, good: tuple[Path, Artifact], name: str, what: str
) -> None:
    """A whole file of another set's artifact, of the same shape or not, is never used."""
    build(tmp_path / "other", changed(what))
    home = tmp_path / "home"
    shutil.copytree(good[0], home)
    for each in FILES if name == "every file" else (name,):
        shutil.copy(folders(tmp_path / "other")[0] / each, folders(home)[0] / each)
    assert_rebuilt(home, good[1])


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', '{"files": {"no": ""}}', "null"])
def test_a_manifest_of_another_shape_is_rebuilt(
    tmp_path: Path, good: tuple[Path, Artifact], content: str
) -> None:
    """A manifest that is JSON but says something else costs a new build."""
    shutil.copytree(good[0], tmp_path, dirs_exist_ok=True)
    (folders(tmp_path)[0] / "manifest.json").write_text(content)
    assert_rebuilt(tmp_path, good[1])


@pytest.mark.parametrize("name", ["index.faiss", "index.sha256"])
@pytest.mark.parametrize("damage", ["halved", "a bit turned", "missing"])
def test_a_damaged_graph_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    """Of a set so large that its index has a graph, a damaged graph costs a new build too."""
    monkeypatch.setattr("semroute_classifier.index.GRAPH_FROM", 10)
    monkeypatch.setitem(Index.build.__func__.__kwdefaults__, "graph_from", 10)  # type: ignore[attr-defined]
    first, _ = build(tmp_path)
    assert build(tmp_path)[1] == 0
    file = folders(tmp_path)[0] / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert_rebuilt(tmp_path, first)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ARRAYS)
def test_nothing_in_a_kept_file_is_run(
    tmp_path: Path, good: tuple[Path, Artifact], name: str
) -> None:
    """Even where the manifest vouches for it, a file of pickled objects is refused unread."""
    sprung = tmp_path / "sprung"
    home = tmp_path / "home"
    shutil.copytree(good[0], home)
    file, manifest = folders(home)[0] / name, folders(home)[0] / "manifest.json"
    trap = np.array([Trap(sprung)], dtype=object)
    with file.open("wb") as open_file:
        (np.save if name.endswith("npy") else np.savez)(open_file, trap)
    said = json.loads(manifest.read_text())
    said["files"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(said))
    assert_rebuilt(home, good[1])
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap is one
