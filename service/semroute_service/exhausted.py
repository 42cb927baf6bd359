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
    UpstreamRequestError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semroute_service.attempts import Attempts, Run
    from semroute_service.backends import BackendError
    from semroute_service.decision import Attempt
    from semroute_service.profile import Behavior
    from semroute_service.schedule import Schedule


def is_final(error: BackendError, behavior: Behavior) -> bool:
    """True where another candidate must not, or could not, do better."""
    filtered = error.error_class is ErrorClass.POLICY_CONTENT_FILTER
    if filtered and behavior.reroute_filtered:
        return False
    return error.error_class.is_final


def refused(run: Run, made: Sequence[Attempt]) -> SemrouteError:
    """The error that a final one of an attempt is to the caller."""
    assert run.error
    if run.error.error_class is ErrorClass.POLICY_CONTENT_FILTER:
        return ContentFilteredError(f"the content filter of {run.model.name} refused", made)
    return UpstreamRequestError(f"{run.model.name} refused the request as malformed", made)


def exhausted(attempts: Attempts, schedule: Schedule) -> SemrouteError:
    """The error that says so best, once every candidate has had its chances."""
    made, unasked = attempts.made, schedule.unasked
    availability = schedule.availability
    classes = {attempt.error_class for attempt in made}
    classes |= {availability.blame(candidate.model) for candidate in unasked}
    told = [
        f"{attempt.model.name}: {attempt.error_class}" for attempt in made if attempt.error_class
    ]
    told += [f"{c.model.name}: not asked, {availability.why_not(c.model)}" for c in unasked]
    if classes == {ErrorClass.CALLER_CONTEXT_LENGTH}:
        return ContextLengthError("the conversation is too long for every candidate", made)
    if classes == {ErrorClass.PROVIDER_CREDENTIALS}:
        what = f"every upstream refused the server's own credentials ({', '.join(told)})"
        return CredentialsError(what, made)
    if classes == {ErrorClass.POLICY_CONTENT_FILTER}:
        return ContentFilteredError("the content filter of every candidate refused", made)
    if classes == {ErrorClass.POLICY_DENIED} and attempts.budget_error:
        return attempts.budget_error
    return UnavailableError(f"no backend could answer ({', '.join(told)})", made, schedule.ready_in)
