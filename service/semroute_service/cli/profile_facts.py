"""A profile as plain data, for people, for programs and for comparing two of them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from semroute_classifier.utterances import Tier
from semroute_service.profile import Limits, Price, Provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.profile import Profile, Route

_NANO = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Something that two profiles say differently; None where one of them does not have it."""

    part: str
    """What it is part of: models, rows, governance and so on."""
    path: tuple[str, ...]
    """Where it stands in that part, such as a row's name and ``high``."""
    first: Any
    second: Any


def facts(profile: Profile) -> dict[str, dict[str, Any]]:
    """Everything that a profile says, by part; money in USD."""
    return {
        "models": {name: _plain(model) for name, model in profile.models.items()},
        "rows": {task: _row(route) for task, route in profile.routes.items()},
        "governance": {
            "allow_cloud": profile.allow_cloud,
            "default_sensitivity": _plain(profile.default_sensitivity),
            "tenants": _plain(profile.tenants),
        },
        "cost": _plain(profile.limits),
        "behavior": _plain(profile.behavior),
        "classifier": {"encoder": _plain(profile.encoder), "cascade": profile.cascade},
        "hardware": _plain(profile.hardware),
    }


def differences(first: Profile, second: Profile) -> list[Difference]:
    """Everything that differs, part by part."""
    found, other = facts(first), facts(second)
    return [
        Difference(part, path, a, b)
        for part in found
        for path, a, b in _differing(found[part], other[part], ())
    ]


def _row(route: Route) -> dict[str, Any]:
    tiers = {tier.word: list(route.primaries(tier)) for tier in Tier}
    return tiers | {k: v for k, v in _plain(route).items() if k not in {"task", "tiers"}}


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key in dict.fromkeys((*first, *second)):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differing(a, b, (*path, key))
        elif a != b:
            yield (*path, key), a, b


def _plain(value: Any) -> Any:
    """``value`` as JSON could hold it."""
    match value:
        case Provider():
            return value.id
        case BaseModel():
            return _plain(value.model_dump(exclude_defaults=True))
        case Price() | Limits():
            nano = dataclasses.asdict(value)
            return {key: None if n is None else n / _NANO for key, n in nano.items()}
        case enum.IntEnum():
            return value.name.lower()
        case Mapping():
            return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
        case frozenset():
            return sorted(map(_plain, value))
        case tuple():
            return [_plain(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return {field.name: _plain(getattr(value, field.name)) for field in fields}
        case _:
            return value
