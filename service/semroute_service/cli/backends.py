"""``backends``: what a running server knows of its backends. Needs the base install only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute.v1 import profile_pb2
from semroute_service.cli import output, question

if TYPE_CHECKING:
    import argparse

    from google.protobuf.duration_pb2 import Duration

_BACKENDS = ("backend", "provider", "where", "waiting", "health")
_MODELS = (
    *("model", "backend", "circuit", "calls", "failures", "first token p50", "p95", "tokens/s"),
    "why not now",
)
_HEALTH = {
    profile_pb2.HEALTH_UNSPECIFIED: "not checked",
    profile_pb2.HEALTH_UP: "up",
    profile_pb2.HEALTH_DOWN: "down",
}


def backends(options: argparse.Namespace) -> int:
    """Health, circuits, counts and speeds, in two tables."""
    return question.put(
        options,
        lambda client: client.backends(options.profile, timeout=options.timeout),
        _print,
    )


def _print(found: profile_pb2.ListBackendsResponse) -> None:
    print(f"profile {found.profile}\n")
    output.print_table(_BACKENDS, [_backend(backend) for backend in found.backends])
    models = [_model(model, backend) for backend in found.backends for model in backend.models]
    print()
    output.print_table(_MODELS, models)


def _backend(backend: profile_pb2.BackendStatus) -> list[str]:
    return [
        backend.backend,
        backend.provider,
        "local" if backend.local else "cloud",
        str(backend.waiting) if backend.HasField("waiting") else "-",
        _health(backend),
    ]


def _health(backend: profile_pb2.BackendStatus) -> str:
    """What the last check said, and when."""
    told = _HEALTH[backend.health]
    if backend.HasField("checked_at"):
        told += f" at {backend.checked_at.ToDatetime():%H:%M:%S} UTC"
    return f"{told}: {backend.problem}" if backend.problem else told


def _model(model: profile_pb2.ModelStatus, backend: profile_pb2.BackendStatus) -> list[str]:
    first = model.time_to_first_token if model.HasField("time_to_first_token") else None
    rate = model.tokens_per_second if model.HasField("tokens_per_second") else None
    return [
        model.model,
        backend.backend,
        profile_pb2.Circuit.Name(model.circuit).removeprefix("CIRCUIT_").replace("_", "-").lower(),
        str(model.calls),
        str(model.failures),
        _seconds(first.p50) if first else "-",
        _seconds(first.p95) if first else "-",
        "-" if rate is None else f"{rate:.0f}",
        _why_not(model),
    ]


def _why_not(model: profile_pb2.ModelStatus) -> str:
    if not model.HasField("ready_in"):
        return model.unavailable
    return f"{model.unavailable}; not asked for {model.ready_in.seconds + 1} s"


def _seconds(duration: Duration) -> str:
    milliseconds = duration.ToMicroseconds() / 1000
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
