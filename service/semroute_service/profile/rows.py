"""The rows of a profile: read, narrowed, and refused where nobody could ever be served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semroute_classifier.documents import suggest
from semroute_classifier.utterances import TASK_NAME, Tier
from semroute_service.profile.model import DEFAULT_ROUTE, Route
from semroute_service.query import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from semroute_classifier.documents import Key
    from semroute_service.profile.model import Model
    from semroute_service.profile.notes import Notes
    from semroute_service.profile.schema import CostSpec, ProfileSpec, RouteSpec


@dataclass
class RowReader:
    """Reads the rows of ``spec``; ``models`` are those that have no problem of their own."""

    spec: ProfileSpec
    models: Mapping[str, Model]
    notes: Notes

    def rows(self, tasks: Iterable[str] | None) -> dict[str, Route]:
        """Every row by its task; one that cannot be read is left out, and a problem.

        With ``tasks``, a row for a task that has no utterances is a warning.
        """
        self._known(("fallback_chain",), self.spec.fallback_chain)
        rows = {t: r for t, s in self.spec.routes.items() if (r := self._row(t, s))}
        if DEFAULT_ROUTE not in self.spec.routes:
            self.notes.problem(
                ("routes",), "has no default row; add one, such as default: {model: NAME}"
            )
        known = {*tasks, DEFAULT_ROUTE} if tasks is not None else set(rows)
        for task in sorted(rows.keys() - known):
            hint = suggest(task, known)
            self.notes.warn(("routes", task), f"no utterances teach this task{hint}")
        return rows

    def _row(self, task: str, spec: RouteSpec) -> Route | None:
        key: Key = ("routes", task)
        if not TASK_NAME.fullmatch(task) or task == "none":
            self.notes.problem(key, f'"{task}" is no task name')
        tiers = self._tiers(key, spec)
        chain = self.spec.fallback_chain if spec.fallback_chain is None else spec.fallback_chain
        known = self._known((*key, "fallback_chain"), spec.fallback_chain or ())
        allow_cloud = self.notes.narrowed(
            (*key, "allow_cloud"),
            spec.allow_cloud,
            self.spec.governance.allow_cloud,
            "governance.allow_cloud",
        )
        fallback_to_cloud = self.notes.narrowed(
            (*key, "fallback_to_cloud"),
            spec.fallback_to_cloud,
            allow_cloud,
            "the row's allow_cloud",
        )
        if not tiers or not known or not set(chain) <= set(self.models):
            return None
        route = Route(
            task=task,
            tiers=tiers,
            fallback_chain=tuple(dict.fromkeys(chain)),
            allow_cloud=allow_cloud,
            fallback_to_cloud=fallback_to_cloud,
            local_only_reason=spec.local_only_reason,
            max_tokens=spec.max_tokens,
            temperature=spec.temperature,
        )
        if all(name in self.models for names in tiers.values() for name in names):
            self._check_reachable(key, route)
            self._check_temperature(key, route)
        return route

    def _tiers(self, key: Key, spec: RouteSpec) -> dict[Tier, tuple[str, ...]]:
        if bool(spec.model) == bool(spec.tiers):
            self.notes.problem(key, "gives a model or tiers, one of the two")
            return {}
        if spec.model:
            if spec.model not in self.spec.models:
                hint = suggest(spec.model, self.spec.models)
                self.notes.problem((*key, "model"), f'there is no model "{spec.model}"{hint}')
                return {}
            return dict.fromkeys(Tier, (spec.model,))
        assert spec.tiers
        lists = {
            Tier.LOW: spec.tiers.low,
            Tier.MEDIUM: spec.tiers.medium,
            Tier.HIGH: spec.tiers.high,
        }
        if not any(lists.values()):
            self.notes.problem((*key, "tiers"), "lists no model; give low, medium or high")
        known = [self._known((*key, "tiers", t.word), names) for t, names in lists.items()]
        if not all(known):
            return {}
        return {tier: tuple(dict.fromkeys(names)) for tier, names in lists.items() if names}

    def _check_temperature(self, key: Key, route: Route) -> None:
        """Tell who does not take the row's temperature, which is left out for them."""
        if route.temperature is None:
            return
        named = {name for names in (*route.tiers.values(), route.fallback_chain) for name in names}
        for name in sorted(named):
            if Parameter.TEMPERATURE in self.models[name].refuses:
                what = f"{name} takes no temperature; it is asked without"
                self.notes.warn((*key, "temperature"), what)

    def _known(self, key: Key, names: Iterable[str]) -> bool:
        return self.notes.known(key, names, self.spec.models, "model")

    def _check_reachable(self, key: Key, route: Route) -> None:
        """Refuse a row, in any of its tiers, that governance could never let anyone serve."""
        cost = self.spec.cost
        chain = [
            never(self.models[name], route.fallback_to_cloud, cost) for name in route.fallback_chain
        ]
        denied: dict[str, str] = {}
        for tier, names in route.tiers.items():
            reasons = {name: never(self.models[name], route.allow_cloud, cost) for name in names}
            if all([*reasons.values(), *chain]):
                why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
                self.notes.problem(key, f"can never be served at tier {tier.word}: {why}")
                return
            denied |= {name: reason for name, reason in reasons.items() if reason}
        for name, reason in sorted(denied.items()):
            self.notes.warn(key, f"{name} is never admitted here: it {reason}")


def never(model: Model, allow_cloud: bool, cost: CostSpec) -> str:
    """Why governance could never admit ``model`` on a row; empty where it could."""
    if not model.local and not allow_cloud:
        return (
            "would leave the building, which the row does not allow; "
            "name a local model or allow_cloud"
        )
    limited = cost.max_per_request is not None or cost.monthly_limit is not None
    if limited and model.effective_price is None:
        return "has no price, and the profile limits the cost; give it a price"
    return ""
