"""Governance asked with the facts of this moment, and beside it what is known of who is up."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from semroute_service import governance
from semroute_service.errors import NoCompliantModelError, SemrouteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from semroute_service.backends import BackendPool
    from semroute_service.decision import Candidate
    from semroute_service.governance import Case, Context
    from semroute_service.ledger import Ledger
    from semroute_service.profile import Model, Profile

_FACTS = tuple(field.name for field in fields(governance.Case))


class Screening:
    """Lives on one event loop."""

    def __init__(self, backends: BackendPool, ledger: Ledger) -> None:
        self._backends = backends
        self._ledger = ledger

    async def context(self, case: Case) -> Context:
        """``case`` with the facts as they are now."""
        limit = case.profile.limits.monthly
        return governance.Context(
            **{name: getattr(case, name) for name in _FACTS},
            budget_left=None if limit is None else limit - await self._spent(case.profile),
            has_credentials=lambda model: model.backend.has_credentials(),
            is_absent=self._backends.is_absent,
        )

    def screen(
        self, models: Iterable[tuple[Model, bool]], context: Context
    ) -> tuple[Candidate, ...]:
        """The ruling on every (model, is it a fallback), and what is known against asking those
        that are admitted."""
        why_not = self._backends.availability.why_not
        return tuple(
            replace(c, unavailable=why) if c.admitted and (why := why_not(c.model)) else c
            for c in governance.screen(models, context)
        )

    async def again(self, candidate: Candidate, case: Case) -> Candidate:
        """``candidate`` with a fresh ruling; asked before every attempt."""
        return governance.judge(candidate, await self.context(case))

    def denied(self, case: Case, candidates: Sequence[Candidate]) -> SemrouteError:
        """Why none of ``candidates`` is admitted."""
        budget = governance.monthly_limit.__name__
        if any(c.rule == budget and c.estimated_cost is not None for c in candidates):
            return self._ledger.exceeded(case.profile.name)
        return NoCompliantModelError(case.route.task, candidates)

    async def _spent(self, profile: Profile) -> int:
        ledger = self._ledger
        known = ledger.spent_as_known(profile.name)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(ledger.thread, ledger.spent, profile.name)
