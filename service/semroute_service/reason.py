"""The choice of a model in one sentence for people."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from semroute_classifier.classifier import Basis
from semroute_service.decision import in_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.classifier import Classification
    from semroute_service.decision import Candidate
    from semroute_service.profile import Route
    from semroute_service.query import Objective
    from semroute_service.sessions import Pin


def explain(
    verdict: Classification,
    route: Route,
    candidates: Sequence[Candidate],
    objective: Objective | None,
    *,
    named: bool,
    pin: Pin | None,
) -> str:
    """Why the first of ``candidates`` in turn answers; ``named`` if the caller chose it."""
    chosen = in_turn(candidates)[0]
    if verdict.basis is Basis.DEFAULTED:
        what = "No task's utterances are near enough, so the default row applies"
    else:
        tier = f" at tier {verdict.tier.word}" if verdict.tier else ""
        what = f"The query is {verdict.task}{tier} (confidence {verdict.confidence:.2f})"
        if route.task != verdict.task:
            what += f", which takes the {route.task} row"
    where = "local" if chosen.model.local else "cloud"
    who = f"{chosen.model.name} ({where}) answers"
    who += _in_spite_of(chosen)
    if named:
        return f"{what}; the caller named {chosen.model.name}, and {who}."
    if objective and not (pin and pin.model == chosen.model.name):
        who += f" (by {objective}: {chosen.ranking})"
    return f"{what}; {_held(pin, chosen, candidates)}{who}{_passed_over(candidates, chosen)}."


def _in_spite_of(chosen: Candidate) -> str:
    """What is known against the one that is chosen all the same."""
    return f", the best that is left ({chosen.unavailable})" if chosen.unavailable else ""


def _held(pin: Pin | None, chosen: Candidate, candidates: Sequence[Candidate]) -> str:
    """What the session has to do with it."""
    if pin is None:
        return ""
    if pin.model != chosen.model.name:
        admitted = any(c.admitted for c in candidates if c.model.name == pin.model)
        why = "not available" if admitted else "denied"
        return f"the session is pinned to {pin.model}, which is {why} this time, so "
    if pin.moved_from:
        return f"the session moved here when the backend of {pin.moved_from} failed, so "
    return f"the session is pinned to {pin.model}, so "


def _passed_over(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """Who was denied, who stood before the chosen one and is not available now, and why."""
    before = candidates[: candidates.index(chosen)]
    denied = [(c.model.name, c.reason) for c in candidates if not c.admitted]
    absent = [(c.model.name, c.unavailable) for c in before if c.unavailable]
    return _told("denied", denied) + _told("not available", absent)


def _told(what: str, found: Sequence[tuple[str, str]]) -> str:
    """(name, reason), those with the same reason together."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in found:
        by_reason[reason].append(name)
    parts = [f"{' and '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"; {what}: {', '.join(parts)}" if parts else ""
