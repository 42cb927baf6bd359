"""What is wrong, or doubtful, in a profile's file: gathered, so that a person sees all at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from semroute_classifier.documents import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from semroute_classifier.documents import Document, Key, Problem


@dataclass
class Notes:
    """What reading one file has found so far, each with the key at which it stands."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, key: Key, message: str) -> None:
        self.problems.append(self.document.problem(key, message))

    def warn(self, key: Key, message: str) -> None:
        self.warnings.append(str(self.document.problem(key, message)))

    def known(self, key: Key, names: Iterable[str], known: Iterable[str], what: str) -> bool:
        """Whether all ``names``, a list at ``key``, are among ``known``; others are problems."""
        unknown = [(i, name) for i, name in enumerate(names) if name not in known]
        for i, name in unknown:
            self.problem((*key, i), f'there is no {what} "{name}"{suggest(name, known)}')
        return not unknown

    def narrowed(self, key: Key, written: bool | None, outer: bool, above: str) -> bool:
        """What is written at ``key``, or what ``above`` says; it may only narrow that."""
        if written and not outer:
            self.problem(key, f"widens what {above} allows, which is false")
        return outer if written is None else written and outer
