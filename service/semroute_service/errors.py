"""Everything that can go wrong for a caller.

    SemrouteError
    ├── InvalidRequestError          a field is wrong; says which and what would be right
    ├── UnknownProfileError
    ├── UnknownModelError
    ├── UnknownSessionError
    ├── NoCompliantModelError        governance denied every candidate
    ├── BudgetExceededError          a budget is exhausted
    ├── OverloadedError              the encoder's queue is full
    ├── NotReadyError                the server is starting or shutting down
    ├── DeadlineError                the caller's deadline passed
    └── CompletionError              the decision stood, the answer failed; carries the attempts
        ├── UpstreamRequestError     an upstream refused the request as malformed
        ├── ContextLengthError       too long for every candidate
        ├── ContentFilteredError     an upstream's content filter refused
        ├── CredentialsError         every upstream refused semroute's credentials
        ├── UnavailableError         every admitted backend failed before its first token
        └── StreamInterruptedError   the answer broke off after its first token

``wire`` maps each to a status and a reason; a test walks the tree and fails if one is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from semroute_service.decision import Attempt, Candidate


class SemrouteError(Exception):
    """The root. Messages are for callers and never hold prompt text, keys or upstream bodies."""


class InvalidRequestError(SemrouteError):
    """``violations`` are (field, what is wrong and what would be right)."""

    def __init__(self, *violations: tuple[str, str]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{field}: {what}" for field, what in violations))


class UnknownProfileError(SemrouteError):
    """The request names a profile that is not loaded."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f'there is no profile "{name}"; loaded: {", ".join(sorted(known))}')


class UnknownModelError(SemrouteError):
    """The request names a model that the profile does not have."""

    def __init__(self, name: str, profile: str, known: Iterable[str]) -> None:
        super().__init__(
            f'profile "{profile}" has no model "{name}"; it has: {", ".join(sorted(known))}'
        )


class UnknownSessionError(SemrouteError):
    """The request names a session that is not open. The message does not repeat its id."""

    def __init__(self, idle_seconds: float) -> None:
        super().__init__(
            "no such session is open; it never began, has ended, belongs to another tenant, or "
            f"was idle for over {idle_seconds:g} s"
        )


class NoCompliantModelError(SemrouteError):
    """Governance denied every candidate; ``candidates`` say by which rule and why."""

    def __init__(self, route: str, candidates: Sequence[Candidate]) -> None:
        self.candidates = tuple(candidates)
        denials = "; ".join(f"{c.model.name}: {c.reason}" for c in candidates)
        super().__init__(f'no candidate of the row "{route}" may answer: {denials}')


class BudgetExceededError(SemrouteError):
    """``subject`` is the budget, ``retry_after`` the seconds until it is renewed."""

    def __init__(self, subject: str, message: str, retry_after: float) -> None:
        self.subject = subject
        self.retry_after = retry_after
        super().__init__(message)


class OverloadedError(SemrouteError):
    """Too much is waiting already."""


class NotReadyError(SemrouteError):
    """The server is starting or shutting down."""


class DeadlineError(SemrouteError):
    """The caller's deadline passed."""


class CompletionError(SemrouteError):
    """The decision stood, but no whole answer came; ``attempts`` are all that were made."""

    def __init__(
        self, message: str, attempts: Sequence[Attempt] = (), retry_after: float | None = None
    ) -> None:
        self.attempts = tuple(attempts)
        self.retry_after = retry_after
        super().__init__(message)


class UpstreamRequestError(CompletionError):
    """An upstream refused the request as malformed."""


class ContextLengthError(CompletionError):
    """The conversation is longer than every candidate's context."""


class ContentFilteredError(CompletionError):
    """An upstream's content filter refused."""


class CredentialsError(CompletionError):
    """Every upstream refused semroute's own credentials."""


class UnavailableError(CompletionError):
    """Every admitted backend failed before its first token."""


class StreamInterruptedError(CompletionError):
    """The answer broke off after its first token."""
