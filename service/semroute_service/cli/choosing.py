"""Which profile a server starts with, and the words for why."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_service.cli import output
from semroute_service.cli.files import folder as folder_of
from semroute_service.detection import Resources, detect, fits, local_servers, recommend
from semroute_service.profile import load_profiles
from semroute_service.settings import DEFAULT_PROFILE, default_home

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from semroute_service.detection import Fit
    from semroute_service.profile import Profile

_log = logging.getLogger("semroute")


class NoProfileError(Exception):
    """No profile can be chosen; the message says why, and what would help."""


def choose(folder: Path, home: Path | None, *, strict: bool) -> str:
    """The name of the profile of ``folder`` that fits this machine, or that a person takes.

    On a terminal a person is asked. Raises ``NoProfileError``, and ``ConfigError`` for the files.
    """
    profiles = list(load_profiles(folder).values())
    resources = asyncio.run(detect(profiles, home))
    best, found = chosen(profiles, resources, strict=strict), fits(profiles, resources)
    passed = passed_over(found, best)
    if len(profiles) > 1 and output.on_terminal():
        best, passed = _asked(found, best), []
    if best is None:
        raise NoProfileError(nothing_fits(found, strict=strict))
    for fit in passed:
        _log.info("profile %s is not chosen: %s", fit.profile.name, why(fit, resources))
    level = logging.INFO if best.fits else logging.WARNING
    _log.log(level, "profile %s is chosen: %s", best.profile.name, why(best, resources))
    return best.profile.name


def look_around(options: argparse.Namespace) -> tuple[list[Profile], Resources]:
    """The profiles of a command's folder, and what there is to run on. Raises ``ConfigError``."""
    profiles = list(load_profiles(folder_of("profiles", options.profiles)).values())
    home = Path(options.home).expanduser() if options.home else default_home()
    return profiles, asyncio.run(detect(profiles, home))


def fit_facts(fit: Fit) -> dict[str, Any]:
    """How a profile stands to what was found, for programs."""
    return {
        "profile": fit.profile.name,
        "description": fit.profile.description,
        "rank": fit.profile.hardware.rank,
        "fits": fit.fits,
        "requirements": [asdict(requirement) for requirement in fit.requirements],
    }


def chosen(profiles: Sequence[Profile], resources: Resources, *, strict: bool) -> Fit | None:
    """What the tree recommends; where it is silent and ``strict`` is not set, the default by its
    name, where there is one."""
    best = recommend(profiles, resources, strict)
    if best is None and not strict:
        named = [p for p in profiles if p.name == DEFAULT_PROFILE]
        best = next(iter(fits(named, resources)), None)
    return best


def passed_over(found: Sequence[Fit], best: Fit | None) -> list[Fit]:
    """The ranked profiles before ``best`` in the order of choice; all of them, where it is None."""
    names = [fit.profile.name for fit in found]
    end = names.index(best.profile.name) if best else len(found)
    return [fit for fit in found[:end] if fit.profile.hardware.rank is not None]


def why(fit: Fit, resources: Resources) -> str:
    """Why a profile is chosen or not, as the end of a sentence."""
    if fit.missing:
        return f"it requires what is not here: {', '.join(fit.missing)}"
    if fit.requirements:
        return f"what it requires is here: {', '.join(r.what for r in fit.requirements)}"
    servers = local_servers(fit.profile, resources)
    return "it requires nothing" + (
        f", and {', '.join(servers)} answers" if servers else ", and no local model server answers"
    )


def requirements(fit: Fit) -> str:
    """What a profile requires, and which of it is missing."""
    met = [r.what for r in fit.requirements if r.met]
    parts = [f"missing: {', '.join(fit.missing)}"] if fit.missing else []
    parts += [f"met: {', '.join(met)}"] if met else []
    return "; ".join(parts) or "nothing"


def nothing_fits(found: Sequence[Fit], *, strict: bool) -> str:
    """Why no profile is chosen, and what would help."""
    ranked = passed_over(found, None)
    if not ranked:
        names = ", ".join(fit.profile.name for fit in found)
        return f"no profile has a hardware.rank, so none is chosen by itself; name one: {names}"
    lines = ["no profile fits what is here; name one with --profile, or provide what it requires"]
    for fit in ranked:
        lacks = ", ".join(fit.missing)
        if strict and not lacks:
            lacks = "a local model server that answers (--strict)"
        lines.append(f"  {fit.profile.name} lacks {lacks}")
    return "\n".join(lines)


async def warn_of_missing(profile: Profile, home: Path | None) -> None:
    """Log what a profile that was named requires and is not here."""
    (blind,) = fits([profile], Resources())
    if blind.fits:  # it requires nothing, so there is nothing to look for
        return
    (fit,) = fits([profile], await detect([profile], home))
    if fit.missing:
        _log.warning("profile %s: %s", profile.name, why(fit, Resources()))


def _asked(found: Sequence[Fit], best: Fit | None) -> Fit:
    """The profile that a person takes from a list."""
    by_word = {str(number): fit for number, fit in enumerate(found, 1)}
    by_word |= {fit.profile.name: fit for fit in found}
    rows = [
        [str(number), fit.profile.name, requirements(fit)] for number, fit in enumerate(found, 1)
    ]
    output.print_table(["", "profile", "what it requires"], rows)
    if best:
        by_word[""] = best
    prompt = f"which profile{f' [{best.profile.name}]' if best else ''}: "
    while True:
        try:
            answer = input(prompt).strip()
        except EOFError:
            raise NoProfileError("no profile was chosen") from None
        if answer in by_word:
            return by_word[answer]
        print(f"  must be a number from 1 to {len(found)}, or a name")
