"""One frozen configuration of the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_PROFILE = "development"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and how the server listens."""

    listen: str = DEFAULT_LISTEN
    profile: str = DEFAULT_PROFILE
    profiles: Path = Path("profiles")
    utterances: Path = Path("utterances")
    encoder: str = ""
    """Overrides the profiles' ``classifier.encoder`` where it is set."""
    home: Path | None = None
    """Artifacts and ledger; None keeps nothing beyond the process."""
    max_message_bytes: int = 16 * 1024 * 1024
    drain_seconds: float = 20.0
    probe_seconds: float = 15.0
    """How often optional backends are asked whether they are there."""
    session_idle_seconds: float = 3600.0
    """How long a session stays open that nobody uses."""
    debug_routing: bool = False
    """Write what becomes of every request to the log ``semroute.routing``."""


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """SEMROUTE_HOME, or the user's cache directory for semroute."""
    if home := environment.get("SEMROUTE_HOME"):
        return Path(home).expanduser()
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "semroute"
