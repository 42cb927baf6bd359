"""The words of ``status`` and ``session``. Imports nothing heavy: every help needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.cli.options import add_server

if TYPE_CHECKING:
    import argparse


def add_status(command: argparse.ArgumentParser) -> None:
    """The command."""
    command.description = (
        "Show a running server's profile, revisions and uptime, and what it has counted since its "
        "start."
    )
    add_calling(command)
    command.set_defaults(run="status:status")


def add_session(command: argparse.ArgumentParser) -> None:
    """The command group with its command."""
    command.description = "Work on the sessions of a running server."
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    end = parts.add_parser("end", help="end a session, and say what it came to")
    end.description = (
        "End a session: its next request begins another, on the profile that is active then. "
        "Sessions end by themselves when they are idle, see semroute serve --session-idle."
    )
    end.add_argument("id", metavar="ID", help="the session id, as its requests name it")
    end.add_argument("--tenant", default="", metavar="NAME", help="whose session it is")
    add_calling(end)
    end.set_defaults(run="status:end_session")


def add_calling(command: argparse.ArgumentParser) -> None:
    """What every command needs that asks a running server."""
    add_server(command)
    command.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
