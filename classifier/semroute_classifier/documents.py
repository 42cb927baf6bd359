"""YAML files that people write, read strictly: a mistake is told with file, line and key.

A file is never half accepted. Whatever is wrong is gathered and raised as one ``ConfigError``,
whose problems each say where they are, what is wrong and, where it can be known, what would be
right.
"""

from __future__ import annotations

import difflib
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
        place = key
        while place and place not in self.lines:
            place = place[:-1]
        return Problem(str(self.path), self.lines.get(place, 0), dotted(key), message)

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
            message = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "extra_forbidden":
                message = "unknown key" + suggest(str(key[-1]), _known_keys(model, key[:-1]))
            elif detail["type"] == "missing":
                message = "is required"
            elif detail["type"] == "string_type":
                message = f"must be text, not {detail['input']!r}; put it in quotes"
            elif detail["type"].endswith(("_type", "_parsing")) and detail["input"] is not None:
                message = f"{message.lower()}, not {detail['input']!r}"
            problems.append(self.problem(key, message))
        return problems


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
    loader = _Loader(text)
    try:
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
        raise ConfigError([Problem(file, line, "", f"is not valid YAML: {what}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, 0, "", f"is not valid YAML: {error}")]) from None
    finally:
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
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._loader.construct_object(node)
        if id(node) in self._seen:  # an alias: the same node met again
            self._complain(node, key, "anchors and aliases are not supported; write it out")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*key, i)) for i, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for name_node, value in node.value:
            name = self._loader.construct_object(name_node)
            if not isinstance(name, str):
                self._complain(name_node, key, f"the key {name!r} must be text; put it in quotes")
                continue
            if name in data:
                self._complain(name_node, (*key, name), "stands twice in the same place")
            self.lines[(*key, name)] = name_node.start_mark.line + 1
            data[name] = self.build(value, (*key, name))
        return data

    def _complain(self, node: yaml.Node, key: Key, message: str) -> None:
        self.problems.append(Problem(self._file, node.start_mark.line + 1, dotted(key), message))


def _kind(node: yaml.Node | None) -> str:
    if node is None:
        return "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "plain text"


def _is_branch(part: str | int) -> bool:
    """Pydantic names the branch of a union in its location; people did not write that."""
    return isinstance(part, str) and ("[" in part or part.startswith("function-"))


def _known_keys(model: type[BaseModel], key: Key) -> list[str]:
    """The keys that ``model`` allows at ``key``."""
    for part in key:
        found = _nested(model, part)
        if found is None:
            return []
        model = found
    return [info.alias or name for name, info in model.model_fields.items()]


def _nested(model: type[BaseModel], part: str | int) -> type[BaseModel] | None:
    """The model below ``part``; a name or number below a dict or list leads to its values."""
    names = {info.alias or name: info for name, info in model.model_fields.items()}
    info = names.get(str(part))
    if info is None:
        return model
    return _model_in(info.annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
