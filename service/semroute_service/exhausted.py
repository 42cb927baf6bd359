"""Why nobody answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.decision import ErrorClass
from semroute_service.errors import (
    ContentFilteredError,
    ContextLengthError,
    CredentialsError,
    SemrouteError,
    UnavailableError,
)

if TYPE_CHECKING:
    from semroute_service.attempts import Attempts
    from semroute_service.schedule import Schedule


def exhausted(attempts: Attempts, schedule: Schedule) -> SemrouteError:
    """The error that says so best, once every candidate has had its chances."""
    made, unasked = attempts.made, schedule.unasked
    availability = schedule.availability
    classes = {attempt.error_class for attempt in made}
    classes |= {availability.blame(candidate.model) for candidate in unasked}
    if classes == {ErrorClass.CALLER_CONTEXT_LENGTH}:
        return ContextLengthError("the conversation is too long for every candidate", made)
    if classes == {ErrorClass.PROVIDER_CREDENTIALS}:
        return CredentialsError("every upstream refused the server's own credentials", made)
    if classes == {ErrorClass.POLICY_CONTENT_FILTER}:
        return ContentFilteredError("the content filter of every candidate refused", made)
    if classes == {ErrorClass.POLICY_DENIED} and attempts.budget_error:
        return attempts.budget_error
    told = [
        f"{attempt.model.name}: {attempt.error_class}" for attempt in made if attempt.error_class
    ]
    told += [f"{c.model.name}: not asked, {availability.why_not(c.model)}" for c in unasked]
    return UnavailableError(f"no backend could answer ({', '.join(told)})", made, schedule.ready_in)
