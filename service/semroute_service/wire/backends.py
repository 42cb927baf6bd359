"""What is known of backends, out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from semroute.v1 import profile_pb2

if TYPE_CHECKING:
    from semroute_service.backends import Availability
    from semroute_service.backends.speeds import Speed
    from semroute_service.profile import Backend, Model, Profile


def write_backends(
    profile: Profile, availability: Availability
) -> profile_pb2.ListBackendsResponse:
    backends = [profile.backends[name] for name in sorted(profile.backends)]
    return profile_pb2.ListBackendsResponse(
        profile=profile.name,
        backends=[_backend(backend, profile, availability) for backend in backends],
    )


def _backend(
    backend: Backend, profile: Profile, availability: Availability
) -> profile_pb2.BackendStatus:
    models = [model for model in profile.models.values() if model.backend.name == backend.name]
    status = profile_pb2.BackendStatus(
        backend=backend.name,
        provider=backend.provider.id,
        local=backend.local,
        waiting=availability.waiting(backend),
        models=[_model(model, availability) for model in models],
    )
    if check := availability.check(backend):
        well = check.answer.well
        status.health = profile_pb2.HEALTH_UP if well else profile_pb2.HEALTH_DOWN
        status.problem = "" if well else check.answer.problem
        moment = Timestamp()
        moment.FromDatetime(check.checked_at)
        status.checked_at.CopyFrom(moment)
    return status


def _model(model: Model, availability: Availability) -> profile_pb2.ModelStatus:
    standing, speed = availability.standing(model), availability.speed(model)
    return profile_pb2.ModelStatus(
        model=model.name,
        unavailable=availability.why_not(model),
        circuit=f"CIRCUIT_{standing.circuit.name}",
        ready_in=_duration(standing.seconds) if standing.seconds else None,
        calls=standing.calls,
        failures=standing.failures,
        time_to_first_token=_quantiles(speed) if speed else None,
        tokens_per_second=speed.tokens_per_second if speed else None,
    )


def _quantiles(speed: Speed) -> profile_pb2.Quantiles:
    return profile_pb2.Quantiles(
        p50=_duration(speed.first_token_p50),
        p95=_duration(speed.first_token_p95),
        count=speed.count,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(math.ceil(seconds * 1e6))
    return duration
