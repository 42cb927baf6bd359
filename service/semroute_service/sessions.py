"""What is remembered of a session: how hard its last query was."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semroute_classifier.classifier import Classification
    from semroute_classifier.utterances import Tier

MOST = 10_000
"""Sessions that are remembered; the one that was idle longest is forgotten first."""


class TierFloors:
    """Within a session the tier does not drop on a follow-up.

    "Shorter, please" looks easy, and is as hard as what it follows. Lives on one event loop.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, Tier] = OrderedDict()

    def hold(self, session_id: str, verdict: Classification) -> Classification:
        """``verdict``, not below the session's last tier where it was read in context."""
        if not session_id or verdict.tier is None:
            return verdict
        tier = verdict.tier
        if verdict.in_context:
            tier = max(tier, self._last.get(session_id, tier))
        self._last[session_id] = tier
        self._last.move_to_end(session_id)
        if len(self._last) > MOST:
            self._last.popitem(last=False)
        return verdict if tier is verdict.tier else replace(verdict, tier=tier)
