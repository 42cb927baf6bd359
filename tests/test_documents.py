"""Files that people write: whatever is wrong is told with file, line and key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from semroute_classifier.documents import (
    ConfigError,
    Document,
    Problem,
    dotted,
    read_yaml,
    suggest,
    yaml_files,
)

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, content: str | bytes) -> Document:
    path = folder / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(path)


def problems(folder: Path, content: str | bytes) -> tuple[Problem, ...]:
    """What is wrong with ``content``; all of it in the same file."""
    with pytest.raises(ConfigError) as caught:
        read(folder, content)
    assert {problem.file for problem in caught.value.problems} == {str(folder / "file.yaml")}
    return caught.value.problems


@pytest.mark.parametrize(
    ("content", "line", "key", "says"),
    [
        ("", 1, "", "keys and values, not nothing"),
        ("# nothing but a comment\n", 1, "", "keys and values, not nothing"),
        ("- a\n- b\n", 1, "", "keys and values, not a list"),
        ("hello\n", 1, "", "keys and values, not plain text"),
        ("a: 1\nb:\n\tc: 2\n", 3, "", "not valid YAML"),
        ("a: 1\nb:\n\tc: 2\n", 3, "", "spaces, not with tabs"),
        ("a: [1, 2\nb: 3\n", 2, "", "not valid YAML"),
        ("a: 'open\n", 2, "", "not valid YAML"),
        ("a: b: c\n", 1, "", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "", "not valid YAML"),
        ("a: !!python/object:os.system x\n", 1, "", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "a", "twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "a.b", "twice"),
        ("a: &x {b: 1}\nc: *x\n", 2, "c", "anchors and aliases"),
        ("a: &x text\nc:\n  - *x\n", 2, "c[0]", "anchors and aliases"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "c", "anchors and aliases"),
        ("a: &x\n  b: *x\n", 2, "a.b", "anchors and aliases"),
        ("a: 1\non: 2\n", 2, "", "the key True must be text; put it in quotes"),
        ("a: 1\n7: 2\n", 2, "", "the key 7 must be text; put it in quotes"),
        ("a: 1\nb: 2026-13-45\n", 2, "b", "put it in quotes"),
        (b"a: \x00\x01\n", 0, "", "not valid YAML"),
        (b"\x89PNG\r\n\x1a\n\x00", 0, "", "not UTF-8"),
        ("a: b\n".encode("utf-16"), 0, "", "not UTF-8"),
    ],
)
def test_broken(tmp_path: Path, content: str | bytes, line: int, key: str, says: str) -> None:
    """Each way of breaking a file gives one problem at its line and key that says what it is."""
    (problem,) = problems(tmp_path, content)
    assert (problem.line, problem.key) == (line, key)
    assert says in problem.message


def test_several_at_once(tmp_path: Path) -> None:
    """A person sees all that is wrong in one go, in the order of the file."""
    found = problems(tmp_path, "a: 1\na: 2\n3: 4\nb: 2026-13-45\n")
    assert [problem.line for problem in found] == [2, 3, 4]


def test_unreadable(tmp_path: Path) -> None:
    """A file that is missing, or is a folder, is told by its name."""
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_yaml(path)
        (problem,) = caught.value.problems
        assert (problem.file, problem.line) == (str(path), 0)
        assert problem.message


def test_lines(tmp_path: Path) -> None:
    """Every key and item knows its line; an unknown place takes the nearest that encloses it."""
    document = read(tmp_path, "\ufeffa:\n  b: 1\n  c:\n    - x\n    - {y: 2}\n")
    assert document.data == {"a": {"b": 1, "c": ["x", {"y": 2}]}}
    assert document.problem(("a", "c", 1, "y"), "wrong").line == 5
    assert document.problem(("a", "c", 1, "z"), "wrong").line == 5
    assert document.problem(("a", "z"), "wrong").line == 1
    text = str(document.problem(("a", "c", 0), "is wrong"))
    assert text == f"{tmp_path / 'file.yaml'}:4: a.c[0]: is wrong"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = 0
    share: float = 0.5
    names: list[str] = []
    wanted: bool = False


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    inner: Inner = Inner()
    more: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("content", "line", "key", "says"),
    [
        ("inner: {}\n", 1, "title", "is required"),
        ("title: a\ntitel: b\n", 2, "titel", 'unknown key; did you mean "title"?'),
        ("title: a\nzzz: b\n", 2, "zzz", "unknown key; known: inner, more, title"),
        ("title: a\ninner:\n  cuont: 1\n", 3, "inner.cuont", 'did you mean "count"?'),
        ("title: a\nmore:\n  x:\n    cuont: 1\n", 4, "more.x.cuont", 'did you mean "count"?'),
        ("title: 1.0\n", 1, "title", "must be text, not 1.0; put it in quotes"),
        ("title: no\n", 1, "title", "must be text, not False; put it in quotes"),
        ("title: 2026-01-31\n", 1, "title", "put it in quotes"),
        ("title: [a]\n", 1, "title", "must be text, not ['a']"),
        ("title:\n", 1, "title", "must be text, not nothing"),
        ("title: a\ninner: 5\n", 2, "inner", "must hold keys and values, not 5"),
        ("title: a\nmore: [x]\n", 2, "more", "must hold keys and values, not ['x']"),
        ("title: a\ninner: {count: many}\n", 2, "inner.count", "a whole number, not 'many'"),
        ("title: a\ninner: {count: 1.5}\n", 2, "inner.count", "a whole number, not 1.5"),
        ("title: a\ninner: {share: 'half'}\n", 2, "inner.share", "must be a number, not 'half'"),
        ("title: a\ninner: {wanted: 'yes'}\n", 2, "inner.wanted", "true or false, not 'yes'"),
        ("title: a\ninner: {names: b}\n", 2, "inner.names", "must be a list, not 'b'"),
        ("title: a\ninner:\n  names:\n  - b\n  - 7\n", 5, "inner.names[1]", "text, not 7"),
    ],
)
def test_parse(tmp_path: Path, content: str, line: int, key: str, says: str) -> None:
    """A value that does not fit is told with its place, what would be right and what is there."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, content).parse(Outer)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (line, key)
    assert says in problem.message


def test_long_values_are_not_repeated(tmp_path: Path) -> None:
    """A message shows the beginning of what is written, not all of it."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"title: a\ninner: {'x' * 5000}\n").parse(Outer)
    assert len(str(caught.value)) < 200 + len(str(tmp_path))


def test_yaml_files(tmp_path: Path) -> None:
    """Both endings count, other files do not, and two files of one name are refused."""
    for name in ("b.yaml", "a.yml", "notes.txt", "c.yaml.bak"):
        (tmp_path / name).write_text("")
    assert [path.name for path in yaml_files(tmp_path, "thing")] == ["a.yml", "b.yaml"]
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"a\.yml: stands beside a\.yaml; keep one of the two"):
        yaml_files(tmp_path, "thing")


def test_no_files(tmp_path: Path) -> None:
    """An empty folder and a missing one are told apart."""
    with pytest.raises(ConfigError, match="holds no thing"):
        yaml_files(tmp_path, "thing")
    with pytest.raises(ConfigError, match="is not a folder"):
        yaml_files(tmp_path / "missing", "thing")


def test_words() -> None:
    """Keys read as people write them, and a near miss is named."""
    assert dotted(("routes", "default", "tiers", "low", 2)) == "routes.default.tiers.low[2]"
    assert suggest("codre", ["coder", "bio"]) == '; did you mean "coder"?'
    assert suggest("zzz", ["coder", "bio"]) == "; known: bio, coder"
    assert suggest("zzz", []) == ""


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,?\t\n 0", max_size=40), st.binary()))
def test_nothing_breaks_it(tmp_path: Path, content: Any) -> None:
    """Whatever a file holds, it is read as a mapping or refused with a reason; it never crashes."""
    try:
        document = read(tmp_path, content)
    except ConfigError as error:
        told = [problem.message for problem in error.problems]
    else:
        told = [f"a mapping of {len(document.data.keys())} keys"]
    assert told
    assert all(told)
