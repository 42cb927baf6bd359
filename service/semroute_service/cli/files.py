"""``check`` and ``init``: the files that people write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from semroute_classifier.documents import ConfigError
from semroute_classifier.utterances import load_utterances
from semroute_service.cli import output
from semroute_service.profile import load_profiles

if TYPE_CHECKING:
    import argparse


def check(options: argparse.Namespace) -> int:
    """Read everything as the server would."""
    utterances = profiles = None
    problems: list[str] = []
    try:
        utterances = load_utterances(folder("utterances", options.utterances))
    except ConfigError as error:
        problems += map(str, error.problems)
    try:
        tasks = utterances.tasks if utterances else None
        profiles = load_profiles(folder("profiles", options.profiles), tasks)
    except ConfigError as error:
        problems += map(str, error.problems)
    warnings = list(utterances.warnings) if utterances else []
    for profile in (profiles or {}).values():
        warnings += profile.warnings
    counts = {
        "profiles": len(profiles or {}),
        "tasks": len(utterances.tasks) if utterances else 0,
        "utterances": len(utterances.utterances) if utterances else 0,
    }
    if options.json:
        output.print_json({**counts, "problems": problems, "warnings": warnings})
        return 1 if problems else 0
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"error: {problem}")
    if problems:
        return output.fail(f"{len(problems)} to mend")
    print("all is well: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


def init(options: argparse.Namespace) -> int:
    """Copy the starter files; what is there already stays as it is."""
    target = Path(options.folder)
    made: list[str] = []
    try:
        for kind in ("profiles", "utterances"):
            source = starter(kind)
            (target / kind).mkdir(parents=True, exist_ok=True)
            for file in sorted(source.glob("*.yaml")):
                copy = target / kind / file.name
                if not copy.exists():
                    shutil.copyfile(file, copy)
                    made.append(str(copy))
    except OSError as error:
        return output.fail(f"{target}: {error.strerror}")
    if options.json:
        output.print_json({"made": made})
    else:
        print(f"{len(made)} files made below {target}; next: semroute check, then semroute serve")
    return 0


def folder(kind: str, given: str) -> Path:
    """The folder that was given, or ./``kind``, or the built-in one where there is none."""
    if given:
        return Path(given).expanduser()
    here = Path(kind)
    return here if here.is_dir() else starter(kind)


def starter(kind: str) -> Path:
    """The starter files: in the wheel beside this package, in a clone at its root."""
    package = Path(__file__).parents[1]
    built = package / "starter" / kind
    return built if built.is_dir() else package.parents[1] / kind
