"""Responses out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from semroute.v1 import profile_pb2
from semroute.v1 import router_pb2 as pb
from semroute_classifier.classifier import Basis, Stage
from semroute_classifier.utterances import Tier
from semroute_service.decision import Attempt, Decision, Delta, Finish, Outcome, Restart
from semroute_service.profile import DEFAULT_ROUTE

if TYPE_CHECKING:
    from datetime import datetime

    from semroute_classifier.classifier import Classification
    from semroute_service.completion import CompletionEvent
    from semroute_service.decision import Candidate, Elapsed, ErrorClass, FinishReason, Usage
    from semroute_service.embedding import Embeddings
    from semroute_service.profile import Profile, Route
    from semroute_service.query import Objective
    from semroute_service.records import Status
    from semroute_service.sessions import Session

_TIERS = {
    None: pb.TIER_UNSPECIFIED,
    Tier.LOW: pb.TIER_LOW,
    Tier.MEDIUM: pb.TIER_MEDIUM,
    Tier.HIGH: pb.TIER_HIGH,
}
_BASES = {Basis.MATCHED: pb.BASIS_MATCHED, Basis.DEFAULTED: pb.BASIS_DEFAULTED}
_STAGES = {Stage.FULL: pb.STAGE_FULL, Stage.STATIC: pb.STAGE_STATIC}
_OUTCOMES = {
    Outcome.SUCCEEDED: pb.ATTEMPT_OUTCOME_SUCCEEDED,
    Outcome.FAILED: pb.ATTEMPT_OUTCOME_FAILED,
    Outcome.CANCELLED: pb.ATTEMPT_OUTCOME_CANCELLED,
}


def write_decision(decision: Decision) -> pb.Decision:
    chosen = decision.chosen
    return pb.Decision(
        id=decision.id,
        decided_at=_timestamp(decision.decided_at),
        profile=decision.profile.name,
        profile_revision=decision.profile.revision,
        utterances_revision=decision.utterances_revision,
        encoder=decision.encoder,
        classification=_classification(decision.classification),
        model=chosen.model.name,
        backend=chosen.model.backend.name,
        provider=chosen.model.backend.provider.id,
        candidates=[_candidate(c) for c in decision.candidates],
        primary_model=decision.primary_model,
        fallback_chain=decision.fallback_chain,
        fallback_depth=decision.fallback_depth,
        reason=decision.reason,
        elapsed=_elapsed(decision.elapsed),
        pinned=decision.pinned,
        pin_moved_from=decision.pin_moved_from,
        route=decision.route,
        objective=_objective(decision.objective),
    )


def write_event(event: Decision | CompletionEvent) -> pb.CompleteResponse:
    match event:
        case Delta():
            response = pb.CompleteResponse()
            _write_delta(event, response.delta)
            return response
        case Decision():
            return pb.CompleteResponse(decision=write_decision(event))
        case Attempt():
            return pb.CompleteResponse(attempt=_attempt(event))
        case Restart():
            restart = pb.Restart(
                model=event.model.name, backend=event.model.backend.name, reason=event.reason
            )
            return pb.CompleteResponse(restart=restart)
        case Finish():
            return pb.CompleteResponse(finish=_finish(event))


def write_embeddings(made: Embeddings) -> pb.EmbedResponse:
    return pb.EmbedResponse(
        embeddings=[pb.Embedding(values=row) for row in made.vectors.tolist()],
        model=made.model,
        dimension=made.vectors.shape[1],
        backend=made.backend,
        usage=_usage(made.usage) if made.usage else None,
        cost_nano_usd=made.cost,
        attempts=[_attempt(attempt) for attempt in made.attempts],
    )


def write_summary(profile: Profile, active: Profile) -> profile_pb2.ProfileSummary:
    return profile_pb2.ProfileSummary(
        name=profile.name,
        description=profile.description,
        version=profile.version,
        revision=profile.revision,
        active=profile.name == active.name,
    )


def write_profile(profile: Profile, active: Profile) -> profile_pb2.Profile:
    models = [
        profile_pb2.Model(
            name=model.name,
            id=model.id,
            backend=model.backend.name,
            provider=model.backend.provider.id,
            local=model.local,
        )
        for model in profile.models.values()
    ]
    last = sorted(profile.routes.values(), key=lambda route: route.task == DEFAULT_ROUTE)
    return profile_pb2.Profile(
        summary=write_summary(profile, active),
        models=models,
        routes=[_route(profile, route) for route in last],
        allow_cloud=profile.allow_cloud,
    )


def write_session(session: Session, seconds: float) -> profile_pb2.EndSessionResponse:
    """What a session came to that lasted so long."""
    return profile_pb2.EndSessionResponse(
        duration=_duration(seconds),
        requests=session.requests,
        cost_nano_usd=session.cost,
        errors=session.errors,
    )


def write_status(status: Status) -> profile_pb2.GetStatusResponse:
    return profile_pb2.GetStatusResponse(
        active=write_summary(status.active, status.active),
        utterances_revision=status.utterances_revision,
        started_at=_timestamp(status.started_at),
        uptime=_duration(status.uptime),
        sessions=status.sessions,
        requests=status.requests,
        errors=status.errors,
        fallbacks=status.fallbacks,
        version=status.version,
    )


def _route(profile: Profile, route: Route) -> profile_pb2.Route:
    def names(tier: Tier) -> list[str]:
        return [model.name for model, _ in profile.candidates(route, tier)]

    return profile_pb2.Route(
        task=route.task,
        low=names(Tier.LOW),
        medium=names(Tier.MEDIUM),
        high=names(Tier.HIGH),
        allow_cloud=route.allow_cloud,
    )


def _classification(verdict: Classification) -> pb.Classification:
    return pb.Classification(
        task=verdict.task or "",
        tier=_TIERS[verdict.tier],
        confidence=verdict.confidence,
        basis=_BASES[verdict.basis],
        matches=[
            pb.Match(
                utterance=match.utterance.text,
                task=match.utterance.task,
                tier=_TIERS[match.utterance.tier],
                similarity=match.similarity,
            )
            for match in verdict.matches
        ],
        runner_up=verdict.runner_up or "",
        margin=verdict.margin,
        stage=_STAGES[verdict.stage],
        cut=verdict.cut,
        in_context=verdict.in_context,
        odds=[pb.TaskOdds(task=task, probability=p) for task, p in verdict.odds],
    )


def _candidate(candidate: Candidate) -> pb.Candidate:
    return pb.Candidate(
        model=candidate.model.name,
        backend=candidate.model.backend.name,
        provider=candidate.model.backend.provider.id,
        local=candidate.model.local,
        ruling=pb.RULING_ADMITTED if candidate.admitted else pb.RULING_DENIED,
        rule=candidate.rule,
        reason=candidate.reason,
        estimated_cost_nano_usd=candidate.estimated_cost,
        unavailable=candidate.unavailable,
        ranking=candidate.ranking,
    )


def _objective(objective: Objective | None) -> str:
    """The wire's names are the program's, in capitals; a test holds them together."""
    return f"OBJECTIVE_{objective.name if objective else 'UNSPECIFIED'}"


def _write_delta(delta: Delta, into: pb.Delta) -> None:
    """In place: there is one for every token, and a copy takes three times as long."""
    into.text = delta.text
    into.reasoning = delta.reasoning
    for call in delta.tool_calls:
        into.tool_calls.add(index=call.index, id=call.id, name=call.name, arguments=call.arguments)


def _attempt(attempt: Attempt) -> pb.Attempt:
    first = attempt.time_to_first_token
    return pb.Attempt(
        model=attempt.model.name,
        backend=attempt.model.backend.name,
        outcome=_OUTCOMES[attempt.outcome],
        error_class=_error_class(attempt.error_class),
        started_at=_timestamp(attempt.started_at),
        time_to_first_token=None if first is None else _duration(first),
        duration=_duration(attempt.duration),
        usage=_usage(attempt.usage),
        cost_nano_usd=attempt.cost,
    )


def _finish(finish: Finish) -> pb.Finish:
    return pb.Finish(
        reason=_finish_reason(finish.reason),
        model=finish.model.name,
        backend=finish.model.backend.name,
        usage=_usage(finish.usage),
        cost_nano_usd=finish.cost,
        attempts=[_attempt(attempt) for attempt in finish.attempts],
    )


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def _error_class(error_class: ErrorClass | None) -> str:
    """The wire's names are the program's, in capitals; a test holds them together."""
    if error_class is None:
        return "ERROR_CLASS_UNSPECIFIED"
    return f"ERROR_CLASS_{error_class.name}"


def _finish_reason(reason: FinishReason) -> str:
    return f"FINISH_REASON_{reason.name}"


def _elapsed(elapsed: Elapsed) -> pb.Elapsed:
    return pb.Elapsed(
        embed=_duration(elapsed.embed),
        search=_duration(elapsed.search),
        policy=_duration(elapsed.policy),
        total=_duration(elapsed.total),
    )


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _timestamp(moment: datetime) -> Timestamp:
    return Timestamp(seconds=math.floor(moment.timestamp()), nanos=moment.microsecond * 1000)
