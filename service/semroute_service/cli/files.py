"""``check`` and ``init``: the files that people write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.documents import ConfigError
from semroute_classifier.utterances import load_utterances
from semroute_service import governance
from semroute_service.cli import output
from semroute_service.profile import load_profiles
from semroute_service.proof import prove

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from semroute_service.profile import Profile
    from semroute_service.proof import Proof


def check(options: argparse.Namespace) -> int:
    """Check every profile and every utterance."""
    place = folder("profiles", options.profiles)
    return check_with(options, lambda tasks: load_profiles(place, tasks))


def check_with(
    options: argparse.Namespace, read: Callable[[Sequence[str] | None], Mapping[str, Profile]]
) -> int:
    """Read the utterances and, with their tasks, the profiles, as the server would, and prove what
    governance holds. ``read`` raises ``ConfigError``; the tasks are None where they are wrong."""
    utterances = profiles = None
    problems: list[str] = []
    try:
        utterances = load_utterances(folder("utterances", options.utterances))
    except ConfigError as error:
        problems += map(str, error.problems)
    try:
        profiles = read(utterances.tasks if utterances else None)
    except ConfigError as error:
        problems += map(str, error.problems)
    warnings = list(utterances.warnings) if utterances else []
    for profile in (profiles or {}).values():
        warnings += profile.warnings
    proofs = {name: prove(profile) for name, profile in (profiles or {}).items()}
    for name, proof in proofs.items():
        problems += [f"profile {name}: {violation}" for violation in proof.violations]
        warnings += [f"profile {name}: {warning}" for warning in proof.warnings]
    counts = {
        "profiles": len(profiles or {}),
        "tasks": len(utterances.tasks) if utterances else 0,
        "utterances": len(utterances.utterances) if utterances else 0,
    }
    if options.json:
        proved = {name: _proof_dict(proof) for name, proof in proofs.items()}
        found = {"problems": problems, "warnings": warnings}
        output.print_json({**counts, **found, "rules": governance.rules(), "governance": proved})
        return 1 if problems else 0
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"error: {problem}")
    if problems:
        return output.fail(f"{len(problems)} to mend")
    _print_proofs(proofs, details=options.proof)
    print("all is well: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


def _print_proofs(proofs: Mapping[str, Proof], *, details: bool) -> None:
    if details:
        output.print_table(
            ["rule", "holds that"], [list(rule) for rule in governance.rules().items()]
        )
        print()
    for name, proof in proofs.items():
        line = (
            f"governance: {name}: proved for {proof.rows} rows x {proof.requests} kinds of request"
        )
        if proof.unserved and not details:
            line += "; some are never served (--proof lists them)"
        print(line)
        if details:
            for unserved in proof.unserved:
                print(f"  never served: {unserved}")


def _proof_dict(proof: Proof) -> dict[str, Any]:
    never = [{"rows": u.rows, "conditions": u.conditions} for u in proof.unserved]
    return {"rows": proof.rows, "requests": proof.requests, "never_served": never}


def init(options: argparse.Namespace) -> int:
    """Copy the starter files, the schema for editors among them; nothing is overwritten."""
    target = Path(options.folder)
    made: list[str] = []
    try:
        for kind in ("profiles", "utterances"):
            source = starter(kind)
            (target / kind).mkdir(parents=True, exist_ok=True)
            for file in sorted(source.iterdir()):
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
