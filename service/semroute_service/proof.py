"""A static proof that governance lets nothing through that a profile forbids.

For each row, and each kind of request that the profile tells apart, what ``governance.screen``
admits is held against what the profile's declarations permit. That is worked out a second time
here, as sets of models and without the rules' code. Whatever depends on the moment or on the one
request (keys, what is running, money spent, lengths, parameters) is taken at its best: anything
less only denies more.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from semroute_classifier.utterances import Tier
from semroute_service import governance
from semroute_service.profile import ANY_TENANT
from semroute_service.query import Caller, Capability, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from semroute_service.profile import Profile, Route

OTHER = "any other"
"""Stands for every region, or tenant, that the profile does not name."""

Kinds: TypeAlias = "Mapping[str, tuple[Any, ...]]"
"""What tells requests apart, with the values that each can take."""
Request: TypeAlias = "tuple[Any, ...]"
"""A kind of request: one value for each of ``Kinds``, in their order."""
Cause: TypeAlias = "tuple[tuple[str, Any], ...]"
"""Conditions, each of ``Kinds`` and a value, that together keep a request from being served."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """Rows on which no request that meets all ``conditions`` is ever served; without conditions,
    no request at all. ``about`` are the kinds that the conditions are about."""

    rows: tuple[str, ...]
    conditions: tuple[str, ...]
    about: frozenset[str]

    def __str__(self) -> str:
        return f"{', '.join(self.rows)}: {' and '.join(self.conditions) or 'every request'}"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved of a profile, for so many rows and kinds of request.

    ``violations`` are what the rules admit and the profile forbids: one of them is a bug here.
    """

    rows: int
    requests: int
    violations: tuple[str, ...]
    unserved: tuple[Unserved, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Rows on which nobody is ever served, or never a tenant, whatever else it asks."""
        return tuple(f"never served: {u}" for u in self.unserved if u.about <= {"tenant"})


def prove(profile: Profile) -> Proof:
    """Ask governance about every row and every kind of request."""
    kinds = kinds_of(profile)
    requests = list(itertools.product(*kinds.values()))
    wrong: defaultdict[str, list[Request]] = defaultdict(list)
    unserved: defaultdict[Cause, list[tuple[str, Tier]]] = defaultdict(list)
    for route in profile.routes.values():
        never: defaultdict[Tier, set[Request]] = defaultdict(set)
        for request in requests:
            first, behind = _admitted(profile, route, request)
            for names, fallback in ((first, False), (behind, True)):
                for name in names - permitted(profile, route, Caller(*request[1:]), fallback):
                    role = "a fallback" if fallback else "the first choice"
                    wrong[f"row {route.task} admits {name} as {role}"].append(request)
            for tier in Tier:
                if not _is_served(route, tier, first, behind):
                    never[tier].add(request)
        for tier, kept in never.items():
            for cause in _causes(kept, kinds):
                unserved[cause].append((route.task, tier))
    return Proof(
        rows=len(profile.routes),
        requests=len(requests),
        violations=tuple(
            f"{what}, which the profile forbids, for {len(found)} kinds of request, such as: "
            + ", ".join(_word(*one) for one in zip(kinds, found[0], strict=True))
            for what, found in sorted(wrong.items())
        ),
        unserved=tuple(_summary(unserved, kinds, profile)),
    )


def kinds_of(profile: Profile) -> dict[str, tuple[Any, ...]]:
    """Whether an answer is wanted or a decision alone, then the fields of ``Caller``.

    A region counts with all that it lies in: eu-west-1, eu-west and eu.
    """
    parts = [m.backend.region.casefold().split("-") for m in profile.models.values()]
    regions = {"-".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
    return {
        "answer": (False, True),
        "tenant": ("", *sorted(profile.tenants.keys() - {ANY_TENANT}), OTHER),
        "region": ("", *sorted(regions - {""}), OTHER),
        "sensitivity": (None, *Sensitivity),
        "local_only": (False, True),
    }


def permitted(profile: Profile, route: Route, caller: Caller, fallback: bool) -> frozenset[str]:
    """The models that the profile permits ``caller`` on a row, as a fallback or as first choice.

    On purpose this shares no code with the rules.
    """
    backends = {name: model.backend for name, model in profile.models.items()}
    home = {n for n, b in backends.items() if b.local and b.provider.locality == "local"}
    tenant = profile.tenants.get(caller.tenant, profile.tenants.get(ANY_TENANT))
    doors = [profile.allow_cloud, route.allow_cloud, not caller.local_only]
    doors += [route.fallback_to_cloud or not fallback, tenant is None or tenant.allow_cloud]
    may = set(backends) if all(doors) else home
    if caller.region:
        wanted = caller.region.casefold().split("-")
        stands = {n: b.region.casefold().split("-") for n, b in backends.items()}
        may = may & {n for n, parts in stands.items() if parts[: len(wanted)] == wanted}
    level = caller.sensitivity or profile.default_sensitivity
    if level is not None:
        may = may & {n for n, b in backends.items() if b.clearance.value >= level.value}
    if tenant is not None:
        for names, own in (
            (tenant.models, {n: n for n in backends}),
            (tenant.providers, {n: b.provider.id for n, b in backends.items()}),
        ):
            may = may - {n for n in may if own[n] in names.deny}
            may = may & {n for n in may if names.allow is None or own[n] in names.allow}
    if profile.limits.max_per_request is not None or profile.limits.monthly is not None:
        may = may & (home | {n for n, model in profile.models.items() if model.price is not None})
    return frozenset(may)


def _admitted(profile: Profile, route: Route, request: Request) -> tuple[set[str], set[str]]:
    """Whom governance admits as the first choice, and whom as a fallback. Every model is asked
    for, since a caller may name any."""
    wants_answer, *caller = request
    context = governance.Context(
        profile=profile,
        route=route,
        caller=Caller(*caller),
        needs=frozenset({Capability.CHAT} if wants_answer else ()),
        parameters=frozenset(),
        prompt_tokens=0,
        max_tokens=1,
        max_cost=profile.limits.max_per_request,
        budget_left=profile.limits.monthly,
        has_credentials=lambda model: True,
        is_absent=lambda model: False,
    )
    roles = [(model, fallback) for model in profile.models.values() for fallback in (False, True)]
    admitted = [c for c in governance.screen(roles, context) if c.admitted]
    first = {c.model.name for c in admitted if not c.is_fallback}
    return first, {c.model.name for c in admitted if c.is_fallback}


def _is_served(route: Route, tier: Tier, first: set[str], behind: set[str]) -> bool:
    primaries = set(route.primaries(tier))
    return bool(primaries & first or (set(route.fallback_chain) - primaries) & behind)


def _causes(unserved: set[Request], kinds: Kinds) -> list[Cause]:
    """The smallest sets of conditions that keep every request which meets them ``unserved``.

    A region that is not declared is one on every row of every profile, and is not told.
    """
    told = {
        kind: [v for v in values if (kind, v) != ("region", OTHER)]
        for kind, values in kinds.items()
    }
    requests = [tuple(zip(kinds, request, strict=True)) for request in unserved]
    requests = [request for request in requests if ("region", OTHER) not in request]
    found: list[Cause] = []
    for size in range(len(kinds) + 1):
        for places in itertools.combinations(range(len(kinds)), size):
            others = math.prod(
                len(values) for i, values in enumerate(told.values()) if i not in places
            )
            met = Counter(tuple(request[i] for i in places) for request in requests)
            found += [
                cause
                for cause, count in met.items()
                if count == others and not any(set(known) < set(cause) for known in found)
            ]
    return found


def _summary(
    unserved: Mapping[Cause, list[tuple[str, Tier]]], kinds: Kinds, profile: Profile
) -> Iterator[Unserved]:
    """Causes of the same rows that differ in one value alone are told together."""
    by_rows: defaultdict[tuple[str, ...], list[Kinds]] = defaultdict(list)
    for cause, places in unserved.items():
        by_rows[tuple(_rows(places, profile))].append({kind: (value,) for kind, value in cause})
    for rows, causes in by_rows.items():
        for kind, order in kinds.items():
            causes = list(_merged(causes, kind, order))
        for merged in causes:
            words = [_words(kind, merged[kind]) for kind in kinds if kind in merged]
            yield Unserved(rows, tuple(words), frozenset(merged))


def _merged(causes: Iterable[Kinds], kind: str, order: tuple[Any, ...]) -> Iterator[Kinds]:
    """``causes``, those that differ in the value of ``kind`` alone taken together."""
    alike: defaultdict[Any, list[Kinds]] = defaultdict(list)
    for cause in causes:
        rest = tuple((k, values) for k, values in cause.items() if k != kind)
        alike[kind in cause, rest].append(cause)
    for (is_about_kind, rest), group in alike.items():
        values = {value for cause in group for value in cause.get(kind, ())}
        about = {kind: tuple(v for v in order if v in values)} if is_about_kind else {}
        yield about | dict(rest)


def _rows(places: list[tuple[str, Tier]], profile: Profile) -> Iterator[str]:
    tiers: defaultdict[str, list[Tier]] = defaultdict(list)
    for row, tier in places:
        tiers[row].append(tier)
    if len(places) == len(profile.routes) * len(Tier):
        yield "every row"
        return
    for row, found in tiers.items():
        words = " and ".join(tier.word for tier in sorted(found))
        yield row if len(found) == len(Tier) else f"{row} at tier {words}"


def _words(kind: str, values: tuple[Any, ...]) -> str:
    """One of several values, in words that name what they are values of once."""
    return " or ".join(_word(kind, value) for value in values).replace(f" or {kind} ", " or ")


def _word(kind: str, value: Any) -> str:
    """One condition in words."""
    match kind, value:
        case "answer", _:
            return "Complete" if value else "Decide"
        case "local_only", _:
            return "local_only" if value else "not local_only"
        case _, None | "":
            return f"no {kind}"
        case _, str():
            return f"{value} {kind}" if value == OTHER else f"{kind} {value}"
        case _:
            return f"{kind} {value.name.lower()}"
