"""``profile``: what profiles there are, which one fits, what one says and how two differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.documents import ConfigError, Problem, suggest, yaml_files
from semroute_classifier.utterances import Tier
from semroute_service.cli import output
from semroute_service.cli.choosing import (
    chosen,
    fit_facts,
    look_around,
    nothing_fits,
    passed_over,
    requirements,
    why,
)
from semroute_service.cli.files import check_with, folder
from semroute_service.cli.options import is_on
from semroute_service.cli.profile_facts import differences, facts
from semroute_service.detection import fits
from semroute_service.profile import load_profile
from semroute_service.proof import permitted
from semroute_service.query import Caller

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from semroute_service.profile import Model, Profile, Route

_WORDS = {
    "allow_cloud": "may leave the building",
    "fallback_to_cloud": "fallbacks may leave the building",
    "local_only_reason": "why it stays",
    "fallback_chain": "fallback chain",
    "max_per_request": "most USD a request",
    "monthly": "most USD a month",
}
"""Keys whose own name says too little."""


def show_all(options: argparse.Namespace) -> int:
    """Every profile in the order of choice, with what it requires."""
    try:
        profiles, resources = look_around(options)
    except ConfigError as error:
        return output.fail(str(error))
    found, best = fits(profiles, resources), chosen(profiles, resources, strict=False)
    name = best.profile.name if best else None
    if options.json:
        output.print_json({"chosen": name, "profiles": [fit_facts(fit) for fit in found]})
        return 0
    rows = [
        [
            "→" if fit.profile.name == name else "",
            fit.profile.name,
            "-" if fit.profile.hardware.rank is None else str(fit.profile.hardware.rank),
            "yes" if fit.fits else "no",
            requirements(fit),
        ]
        for fit in found
    ]
    output.print_table(["", "profile", "rank", "fits", "what it requires"], rows)
    return 0


def recommend(options: argparse.Namespace) -> int:
    """The profile that a server would start with; the status is 1 where there is none."""
    try:
        strict = is_on(options, "strict")
        profiles, resources = look_around(options)
    except ValueError as error:
        return output.fail(str(error), status=2)
    except ConfigError as error:
        return output.fail(str(error))
    found, best = fits(profiles, resources), chosen(profiles, resources, strict=strict)
    before = passed_over(found, best)
    if options.json:
        output.print_json(
            {
                "recommended": fit_facts(best) if best else None,
                "why": why(best, resources) if best else nothing_fits(found, strict=strict),
                "passed_over": [fit_facts(fit) for fit in before],
            }
        )
        return 0 if best else 1
    if best is None:
        return output.fail(nothing_fits(found, strict=strict))
    print(f"{best.profile.name}: {why(best, resources)}")
    for fit in before:
        print(f"  not {fit.profile.name}: {why(fit, resources)}")
    return 0


def show(options: argparse.Namespace) -> int:
    """One profile: its models, its rows, where data may go and what it may cost."""
    try:
        profile = load_profile(find(options.name, folder("profiles", options.profiles)))
    except ConfigError as error:
        return output.fail(str(error))
    if options.json:
        head = {key: getattr(profile, key) for key in ("name", "description", "version")}
        output.print_json({**head, "revision": profile.revision, **facts(profile)})
        return 0
    print(f"{profile.name}, revision {profile.revision}\n{profile.description}".rstrip())
    print("\nmodels")
    output.print_table(
        ["model", "where", "backend", "context", "USD per M tokens", "id"],
        [_model_cells(model) for model in profile.models.values()],
    )
    print("\nrows")
    rows = [cells for route in profile.routes.values() for cells in _row_cells(profile, route)]
    output.print_table(["task", "tier", "asked first", "behind it", "data"], rows)
    said = facts(profile)
    for part in ("governance", "cost"):
        print(f"\n{part}")
        for key, value in said[part].items():
            no_limit = part == "cost" and value is None
            print(f"  {_words(key)}: {'no limit' if no_limit else _value(value)}")
    return 0


def check(options: argparse.Namespace) -> int:
    """One profile, as ``semroute check`` looks at all of them."""

    def read(tasks: Sequence[str] | None) -> dict[str, Profile]:
        profile = load_profile(find(options.name, folder("profiles", options.profiles)), tasks)
        return {profile.name: profile}

    return check_with(options, read)


def diff(options: argparse.Namespace) -> int:
    """What differs between two profiles, part by part."""
    place = folder("profiles", options.profiles)
    try:
        first, second = (load_profile(find(n, place)) for n in (options.first, options.second))
    except ConfigError as error:
        return output.fail(str(error))
    found = differences(first, second)
    if options.json:
        pair = {"first": first.name, "second": second.name}
        output.print_json({**pair, "differences": [asdict(difference) for difference in found]})
        return 0
    if not found:
        print(f"{first.name} and {second.name} say the same")
    part = ""
    for difference in found:
        if difference.part != part:
            part = difference.part
            print(part)
        named = 1 if part in {"models", "rows"} else 0
        path = difference.path
        what = ", ".join((*path[:named], *map(_words, path[named:])))
        a, b = difference.first, difference.second
        if None in (a, b) and isinstance(a or b, dict):
            print(f"  {what}: only in {first.name if b is None else second.name}")
        else:
            print(f"  {what}: {_value(a)} in {first.name}; {_value(b)} in {second.name}")
    return 0


def find(given: str, place: Path) -> Path:
    """The file of a profile that is given by name or as a file; raises ``ConfigError``."""
    if Path(given).suffix in {".yaml", ".yml"}:
        return Path(given)
    files = {path.stem: path for path in yaml_files(place, "profile (<name>.yaml)")}
    if given not in files:
        message = f'there is no profile "{given}"{suggest(given, files)}'
        raise ConfigError([Problem(str(place), 0, "", message)])
    return files[given]


def _model_cells(model: Model) -> list[str]:
    price = model.effective_price
    return [
        model.name,
        "local" if model.local else "cloud",
        model.backend.name,
        str(model.context or "-"),
        f"{price.input / 1e9:g} in, {price.output / 1e9:g} out" if price else "not known",
        model.id or "the first that it lists",
    ]


def _row_cells(profile: Profile, route: Route) -> Iterator[list[str]]:
    """A line for each list of candidates, with the tiers that share it; where data may go stands
    in the first."""
    tiers: dict[tuple[tuple[Model, ...], ...], list[str]] = {}
    for tier in Tier:
        tiers.setdefault(_permitted(profile, route, tier), []).append(tier.word)
    models = [model for first, behind in tiers for model in (*first, *behind)]
    places = dict.fromkeys(m.backend.provider.id for m in models if not m.local)
    data = f"may go to {', '.join(places)}" if places else "stays in the building"
    if route.local_only_reason and not places:
        data += f": {route.local_only_reason}"
    task = route.task
    for lists, words in tiers.items():
        names = [_value([model.name for model in models]) for models in lists]
        yield [task, "any" if len(tiers) == 1 else ", ".join(words), *names, data]
        task = data = ""


def _permitted(
    profile: Profile, route: Route, tier: Tier
) -> tuple[tuple[Model, ...], tuple[Model, ...]]:
    """Who may answer a caller that restricts nothing: first choices, and what is behind them."""
    both = [
        (model, is_fallback)
        for model, is_fallback in profile.candidates(route, tier)
        if model.name in permitted(profile, route, Caller(), is_fallback)
    ]
    first, behind = (
        tuple(m for m, is_fallback in both if is_fallback is role) for role in (False, True)
    )
    return first, behind


def _words(key: str) -> str:
    return _WORDS.get(key, key.replace("_", " "))


def _value(value: Any) -> str:
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_value, value))
        case dict():
            return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items()) or "-"
        case _:
            return str(value)
