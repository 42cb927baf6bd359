"""Utterances: example sentences, each with its task and, optionally, its tier.

``utterances/<task>.yaml`` is all that a team writes to teach the router a task. ``none.yaml`` is
reserved for out-of-scope examples.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from semroute_classifier.documents import ConfigError, Document, Problem, read_yaml, yaml_files

if TYPE_CHECKING:
    from pathlib import Path

NONE = "none"
"""The reserved name of the out-of-scope examples; never a task."""
RESERVED = frozenset({"default"})
TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")
THIN = 10
"""A task with fewer utterances than this is served, with a warning."""


class Tier(enum.IntEnum):
    """How hard a query is; ordered."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3

    @property
    def word(self) -> str:
        """The tier as files and tables write it: ``low``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Utterance:
    """An example sentence with its task and, where the task has tiers, its tier.

    ``line`` is where it stands in its task's file; 0 where it comes from no file.
    """

    text: str
    task: str
    tier: Tier | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class UtteranceSet:
    """Every utterance of a folder, in a fixed order, with a revision that names the content."""

    utterances: tuple[Utterance, ...]
    descriptions: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    min_confidence: dict[str, float] = field(default_factory=dict)
    """The least confidence at which a query is matched to a task, where its file sets one."""
    revision: str = ""

    def __post_init__(self) -> None:
        rows = [[u.task, u.tier or 0, u.text] for u in self.utterances]
        digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
        object.__setattr__(self, "revision", digest[:12])

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in order; ``none`` is not one."""
        return tuple(dict.fromkeys(u.task for u in self.utterances if u.task != NONE))


def load_utterances(folder: Path) -> UtteranceSet:
    """Read every ``*.yaml`` of ``folder``.

    Raises ``ConfigError`` with every problem of every file, also where there is no file at all.
    """
    problems: list[Problem] = []
    utterances: list[Utterance] = []
    descriptions: dict[str, str] = {}
    least: dict[str, float] = {}
    for path in yaml_files(folder, "utterance file (<task>.yaml)"):
        try:
            found, file = _load_task(path)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        utterances.extend(found)
        if path.stem != NONE:
            descriptions[path.stem] = file.description
        if file.min_confidence is not None:
            least[path.stem] = file.min_confidence
    if not problems and not any(u.task != NONE for u in utterances):
        problems.append(Problem(str(folder), 0, "", "holds no task beside none"))
    if problems:
        raise ConfigError(problems)
    return UtteranceSet(tuple(utterances), descriptions, tuple(_warnings(utterances)), least)


class _TaskFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = ""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    low: list[str] = Field(default_factory=list)
    medium: list[str] = Field(default_factory=list)
    high: list[str] = Field(default_factory=list)
    utterances: list[str] = Field(default_factory=list)

    def rows(self) -> list[tuple[str, int, Tier | None, str]]:
        """(key, position, tier, text) of every utterance."""
        lists: list[tuple[str, Tier | None, list[str]]] = [
            ("low", Tier.LOW, self.low),
            ("medium", Tier.MEDIUM, self.medium),
            ("high", Tier.HIGH, self.high),
            ("utterances", None, self.utterances),
        ]
        return [(key, i, tier, text) for key, tier, texts in lists for i, text in enumerate(texts)]


def _load_task(path: Path) -> tuple[list[Utterance], _TaskFile]:
    task = path.stem
    document = read_yaml(path)
    file = document.parse(_TaskFile)
    rows = file.rows()
    problems = list(_name_problems(document, task))
    tiered = any(tier for _, _, tier, _ in rows)
    if tiered and file.utterances:
        problems.append(
            document.problem(("utterances",), "a task has tiers or one list, not both; sort these")
        )
    if tiered and task == NONE:
        problems.append(document.problem((), "none has no tiers; use one list: utterances"))
    if file.min_confidence is not None and task == NONE:
        problems.append(
            document.problem(("min_confidence",), "none is no task to be matched; leave it out")
        )
    if not rows:
        problems.append(
            document.problem((), "holds no utterance; give low, medium, high or utterances")
        )
    problems.extend(
        document.problem((key, i), "is empty") for key, i, _, text in rows if not text.strip()
    )
    if problems:
        raise ConfigError(problems)
    found = [
        Utterance(text.strip(), task, tier, document.problem((key, i), "").line)
        for key, i, tier, text in rows
    ]
    return found, file


def _name_problems(document: Document, task: str) -> list[Problem]:
    if task in RESERVED:
        return [document.problem((), f'"{task}" is reserved; name the file after its task')]
    if not TASK_NAME.fullmatch(task):
        message = f'"{task}" is no task name; use lower-case letters, digits and underscore'
        return [document.problem((), message)]
    return []


def _warnings(utterances: list[Utterance]) -> list[str]:
    counts = Counter(u.task for u in utterances)
    warnings = [
        f"task {task} has only {n} utterances; {THIN} or more serve better"
        for task, n in counts.items()
        if n < THIN
    ]
    first: dict[str, str] = {}
    for utterance in utterances:
        text = utterance.text.casefold()
        other = first.setdefault(text, utterance.task)
        if other != utterance.task:
            warnings.append(f'"{utterance.text}" stands in {other} and in {utterance.task}')
    return warnings
