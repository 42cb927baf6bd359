"""``status``, ``session end`` and ``profile activate``: operating a running server. Needs the
base install only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.cli import question

if TYPE_CHECKING:
    import argparse

    from semroute.v1 import profile_pb2

_NANO = 1_000_000_000


def status(options: argparse.Namespace) -> int:
    """The server's profile, revisions, uptime and counts."""
    return question.put(options, lambda client: client.status(timeout=options.timeout), _print)


def end_session(options: argparse.Namespace) -> int:
    """End a session, and say what it came to."""
    return question.put(
        options,
        lambda client: client.end_session(
            options.id, tenant=options.tenant, timeout=options.timeout
        ),
        lambda ended: print(
            f"ended after {_words(ended.duration.seconds)}: {ended.requests} requests, "
            f"{ended.errors} errors, {ended.cost_nano_usd / _NANO:.6f} USD"
        ),
    )


def activate(options: argparse.Namespace) -> int:
    """Make a profile the one that requests without a profile use."""
    return question.put(
        options,
        lambda client: client.activate_profile(options.name, timeout=options.timeout),
        lambda active: print(f"{active.name} is active (revision {active.revision})"),
    )


def _print(found: profile_pb2.GetStatusResponse) -> None:
    active = found.active
    started = found.started_at.ToDatetime()
    for name, text in (
        ("profile", f"{active.name} (revision {active.revision})"),
        ("utterances", f"revision {found.utterances_revision}"),
        ("up", f"{_words(found.uptime.seconds)}, since {started:%Y-%m-%d %H:%M:%S} UTC"),
        ("sessions", f"{found.sessions} open"),
        ("requests", str(found.requests)),
        ("errors", str(found.errors)),
        ("fallbacks", str(found.fallbacks)),
        ("version", found.version),
    ):
        print(f"{name:<10} {text}")


def _words(seconds: int) -> str:
    """The two largest units of a duration: 3 h 2 min."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts = []
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
