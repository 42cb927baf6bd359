"""The choice of a model in one sentence for people."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from semroute_classifier.classifier import Basis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_classifier.classifier import Classification
    from semroute_service.decision import Candidate
    from semroute_service.profile import Route
    from semroute_service.sessions import Pin


def explain(
    verdict: Classification,
    route: Route,
    candidates: Sequence[Candidate],
    *,
    named: bool,
    pin: Pin | None,
) -> str:
    """Why the first admitted one of ``candidates`` answers; ``named`` if the caller chose it."""
    chosen = next(c for c in candidates if c.admitted)
    if verdict.basis is Basis.DEFAULTED:
        what = "No task's utterances are near enough, so the default row applies"
    else:
        tier = f" at tier {verdict.tier.word}" if verdict.tier else ""
        what = f"The query is {verdict.task}{tier} (confidence {verdict.confidence:.2f})"
        if route.task != verdict.task:
            what += f", which takes the {route.task} row"
    where = "local" if chosen.model.local else "cloud"
    who = f"{chosen.model.name} ({where}) answers"
    if named:
        return f"{what}; the caller named {chosen.model.name}, and {who}."
    return f"{what}; {_held(pin, chosen)}{who}{_passed_over(candidates)}."


def _held(pin: Pin | None, chosen: Candidate) -> str:
    """What the session has to do with it."""
    if pin is None:
        return ""
    if pin.model != chosen.model.name:
        return f"the session is pinned to {pin.model}, which is denied this time, so "
    if pin.moved_from:
        return f"the session moved here when the backend of {pin.moved_from} failed, so "
    return f"the session is pinned to {pin.model}, so "


def _passed_over(candidates: Sequence[Candidate]) -> str:
    """Who was denied and why, those with the same reason together."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        if not candidate.admitted:
            by_reason[candidate.reason].append(candidate.model.name)
    denials = [f"{' and '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"; denied: {', '.join(denials)}" if denials else ""
