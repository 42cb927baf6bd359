"""The words of ``backends``. Imports nothing heavy: every help needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.cli.status_options import add_calling

if TYPE_CHECKING:
    import argparse


def add_backends(command: argparse.ArgumentParser) -> None:
    """The command."""
    command.description = (
        "Show which backends of a profile a running server can ask now: what their last check "
        "said, what is known against each model, and how fast it was of late."
    )
    command.add_argument(
        "--profile", default="", metavar="NAME", help="the profile (default: the active one)"
    )
    add_calling(command)
    command.set_defaults(run="backends:backends")
