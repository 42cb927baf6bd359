"""YAML files that people write, read strictly: a mistake is told with file, line and key.

A file is never half accepted. Whatever is wrong is gathered and raised as one ``ConfigError``,
whose problems each say where they are, what is wrong and, where it can be known, what would be
right.
"""

from __future__ import annotations

import datetime
import difflib
import reprlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Key = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in one place. ``line`` counts from 1; 0 means the whole file."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """A file that a person wrote is wrong. ``problems`` is never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML mapping that remembers on which line each key stands."""

    path: Path
    data: dict[str, Any]
    lines: dict[Key, int] = field(repr=False)

    def problem(self, key: Key, message: str) -> Problem:
        """A problem at ``key``, or at the nearest enclosing key that has a line."""
        return Problem(str(self.path), _line(self.lines, key), dotted(key), message)

    def parse(self, model: type[Model]) -> Model:
        """Validate against ``model``; raise ``ConfigError`` with every problem found."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise ConfigError(self._translate(error, model)) from None

    def _translate(self, error: ValidationError, model: type[BaseModel]) -> list[Problem]:
        problems = []
        for detail in error.errors(include_url=False):
            key = tuple(part for part in detail["loc"] if not _is_branch(part))
            if detail["type"] == "extra_forbidden":
                message = "unknown key" + suggest(str(key[-1]), _known_keys(model, key[:-1]))
            else:
                message = _expectation(detail["type"], detail["msg"], detail["input"])
            problems.append(self.problem(key, message))
        return problems


def yaml_files(folder: Path, kind: str) -> list[Path]:
    """Every YAML file of ``folder`` in the order of the names; ``kind`` is for the error.

    Raises ``ConfigError`` where there is none, and where two have the same name.
    """
    paths = sorted(p for p in folder.glob("*.y*ml") if p.suffix in {".yaml", ".yml"})
    if not paths:
        what = f"holds no {kind}" if folder.is_dir() else "is not a folder"
        raise ConfigError([Problem(str(folder), 0, "", what)])
    first = {path.stem: path for path in reversed(paths)}
    problems = [
        Problem(str(path), 0, "", f"stands beside {first[path.stem].name}; keep one of the two")
        for path in paths
        if path is not first[path.stem]
    ]
    if problems:
        raise ConfigError(problems)
    return paths


def read_yaml(path: Path) -> Document:
    """Read one YAML file whose top level is a mapping.

    Raises ``ConfigError`` where the file cannot be read, is not YAML, repeats a key or uses
    anchors.
    """
    file = str(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError([Problem(file, 0, "", f"larger than {MAX_FILE_BYTES >> 20} MiB")])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(file, 0, "", error.strerror or str(error))]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(file, 0, "", f"is not UTF-8 ({error.reason})")]) from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                [Problem(file, 1, "", "must hold keys and values, not " + _kind(node))]
            )
        reader = _Reader(file, loader)
        data = reader.build(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        what = " ".join(filter(None, (error.context, error.problem)))
        written = "".join(text.splitlines()[line - 1 : line])
        if "\t" in written.removesuffix(written.lstrip()):
            what += "; indent with spaces, not with tabs"
        raise ConfigError([Problem(file, line, "", f"is not valid YAML: {what}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, 0, "", f"is not valid YAML: {error}")]) from None
    finally:
        if loader:
            loader.dispose()
    if reader.problems:
        raise ConfigError(reader.problems)
    return Document(path, data, reader.lines)


def suggest(word: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` or the list of what is known, for the end of an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(names)}" if names else ""


def dotted(key: Sequence[str | int]) -> str:
    """A key path as people write it: ``routes.default.model`` or ``low[3]``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


_NO_ALIASES = "anchors and aliases are not supported; write it out"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader:
    """Turns a node tree into plain data, noting the line of every key."""

    def __init__(self, file: str, loader: Any) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[Key, int] = {}
        self._file = file
        self._loader = loader
        self._seen: set[int] = set()

    def build(self, node: yaml.Node, key: Key) -> Any:
        if id(node) in self._seen:  # an alias: the same node met again, at its anchor's mark
            line = _line(self.lines, key)
            self.problems.append(Problem(self._file, line, dotted(key), _NO_ALIASES))
            return None
        self._seen.add(id(node))
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*key, i)) for i, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for name_node, value in node.value:
            if name_node.tag == "tag:yaml.org,2002:merge":
                self._complain(name_node, key, _NO_ALIASES)
                continue
            name = self._scalar(name_node, key)
            if not isinstance(name, str):
                self._complain(name_node, key, f"the key {name!r} must be text; put it in quotes")
                continue
            if name in data:
                self._complain(name_node, (*key, name), "stands twice in the same place")
            self.lines[(*key, name)] = name_node.start_mark.line + 1
            data[name] = self.build(value, (*key, name))
        return data

    def _scalar(self, node: yaml.Node, key: Key) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # 2026-13-45 looks like a date and is none
            self._complain(node, key, f"{error}; put it in quotes if it is text")
            return ""

    def _complain(self, node: yaml.Node, key: Key, message: str) -> None:
        self.problems.append(Problem(self._file, node.start_mark.line + 1, dotted(key), message))


def _line(lines: dict[Key, int], key: Key) -> int:
    """The line of ``key``, or of the nearest enclosing key that has one."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 0)


def _kind(node: yaml.Node | None) -> str:
    if node is None:
        return "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "plain text"


_EXPECTED = {
    "missing": "is required",
    "too_short": "must not be empty",
    "model_type": "must hold keys and values",
    "dict_type": "must hold keys and values",
    "list_type": "must be a list",
    "frozen_set_type": "must be a list",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
}


def _expectation(kind: str, message: str, written: Any) -> str:
    """What would be right, and what is written; ``kind`` and ``message`` are pydantic's."""
    expected = _EXPECTED.get(kind) or message.replace("Input should be", "must be")
    if kind in {"missing", "too_short"}:
        return expected
    expected += f", not {'nothing' if written is None else reprlib.repr(written)}"
    if kind == "string_type" and isinstance(written, int | float | datetime.date):
        expected += "; put it in quotes"
    return expected


def _is_branch(part: str | int) -> bool:
    """Pydantic names the branch of a union in its location; people did not write that."""
    return isinstance(part, str) and ("[" in part or part.startswith("function-"))


def _known_keys(model: type[BaseModel], key: Key) -> list[str]:
    """The keys that ``model`` allows at ``key``, whose parts are fields, and the names or numbers
    of what dicts and lists hold."""
    is_field = True
    for part in key:
        if not is_field:  # a name or a number, whatever it is called; its value follows
            is_field = True
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        found = _model_in(fields[str(part)].annotation) if str(part) in fields else None
        if found is None:
            return []
        is_field = getattr(fields[str(part)].annotation, "__origin__", None) not in {dict, list}
        model = found
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
