"""``utterances``: what a team teaches the router, counted and checked for doubts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semroute_classifier.artifacts import load_or_build
from semroute_classifier.documents import ConfigError, yaml_files
from semroute_classifier.encoders import EncoderError, load_encoder
from semroute_classifier.lint import Finding, Level
from semroute_classifier.lint import lint as find
from semroute_classifier.utterances import Tier, load_utterances
from semroute_service.cli import output
from semroute_service.cli.evaluate import progress
from semroute_service.cli.files import folder
from semroute_service.settings import default_home

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from semroute_classifier.utterances import Utterance, UtteranceSet

_NOTES = 20
"""Notes that people are shown unless they ask for all; every error and warning is."""

_WIDTH = 140


@dataclass(frozen=True, slots=True)
class _Places:
    """Where utterances stand: each task's file."""

    files: dict[str, Path]

    @classmethod
    def of(cls, source: Path) -> _Places:
        return cls({path.stem: path for path in yaml_files(source, "utterance file")})

    def file(self, task: str) -> str:
        return str(self.files[task])

    def place(self, utterance: Utterance) -> str:
        """``utterances/code.yaml:12``, which editors and terminals open."""
        return f"{self.file(utterance.task)}:{utterance.line}"


def lint(options: argparse.Namespace) -> int:
    """Print every doubt; the status is 1 where there is an error, or with --strict a warning."""
    source = folder("utterances", options.folder)
    try:
        utterances = load_utterances(source)
        places = _Places.of(source)
        encoder = load_encoder(options.encoder, default_home())
        told = progress("embedding utterances")
        artifact = load_or_build(utterances, encoder, default_home(), told)
    except (ConfigError, EncoderError) as error:
        return output.fail(str(error))
    findings = find(utterances, artifact.vectors, near=options.near, fewest=options.fewest)
    if options.json:
        output.print_json(_as_dict(findings, utterances, places))
    else:
        _print(findings, utterances, places, _NOTES if not options.all else len(findings))
    worst = max((finding.level for finding in findings), default=Level.NOTE)
    return 1 if worst >= (Level.WARNING if options.strict else Level.ERROR) else 0


def show(options: argparse.Namespace) -> int:
    """Print how many utterances each task and tier has."""
    try:
        utterances = load_utterances(folder("utterances", options.folder))
    except ConfigError as error:
        return output.fail(str(error))
    counts = Counter((u.task, u.tier.word if u.tier else "") for u in utterances.utterances)
    words = [tier.word for tier in Tier]
    tasks = dict.fromkeys(u.task for u in utterances.utterances)
    rows = [
        {
            "task": task,
            "utterances": sum(n for (name, _), n in counts.items() if name == task),
            **{word: counts[task, word] for word in words},
            "description": utterances.descriptions.get(task, "Out of scope; never a task."),
        }
        for task in tasks
    ]
    if options.json:
        output.print_json({"revision": utterances.revision, "tasks": rows})
        return 0
    head = ["task", "utterances", *words, "description"]
    output.print_table(head, [[str(row[name] or "-") for name in head] for row in rows])
    total = len(utterances.utterances)
    print(f"\n{total} utterances, {len(utterances.tasks)} tasks, revision {utterances.revision}")
    return 0


def _as_dict(findings: list[Finding], utterances: UtteranceSet, places: _Places) -> dict[str, Any]:
    return {
        "revision": utterances.revision,
        "utterances": len(utterances.utterances),
        **{f"{level.word}s": _count(findings, level) for level in reversed(Level)},
        "findings": [
            {
                "level": finding.level.word,
                "rule": finding.rule,
                "task": finding.task,
                "message": finding.message,
                "file": places.file(finding.task),
                "line": finding.utterance.line if finding.utterance else None,
                "utterance": finding.utterance.text if finding.utterance else None,
                "others": [
                    {
                        "file": places.file(other.utterance.task),
                        "line": other.utterance.line,
                        "task": other.utterance.task,
                        "utterance": other.utterance.text,
                        "similarity": round(other.similarity, 4),
                    }
                    for other in finding.others
                ],
            }
            for finding in findings
        ],
    }


def _print(
    findings: list[Finding], utterances: UtteranceSet, places: _Places, most_notes: int
) -> None:
    certain = [finding for finding in findings if finding.level > Level.NOTE]
    notes = [finding for finding in findings if finding.level == Level.NOTE]
    for finding in certain + notes[:most_notes]:
        _print_finding(finding, places)
    if len(notes) > most_notes:
        print(f"and {len(notes) - most_notes} notes more: --all shows them\n")
    counts = ", ".join(f"{_count(findings, level)} {level.word}s" for level in reversed(Level))
    print(f"{counts} on {len(utterances.utterances)} utterances")


def _print_finding(finding: Finding, places: _Places) -> None:
    """The place first, as compilers print it; the texts below."""
    if finding.utterance is None:
        print(f"{finding.level.word}: {places.file(finding.task)}: {finding.message}\n")
        return
    print(f"{finding.level.word}: {places.place(finding.utterance)}: {finding.message}")
    print(f"        {one_line(finding.utterance.text)}")
    for other in finding.others:
        place, text = places.place(other.utterance), one_line(other.utterance.text)
        print(f"  {other.similarity:.2f}  {place}: {text}")
    print()


def _count(findings: list[Finding], level: Level) -> int:
    return sum(finding.level == level for finding in findings)


def one_line(text: str) -> str:
    """A text on one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _WIDTH else flat[: _WIDTH - 1] + "…"
