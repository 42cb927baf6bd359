"""Options that several commands share. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


_SWITCH = {"0": False, "false": False, "1": True, "true": True}


def twin(name: str, default: str = "") -> str:
    """SEMROUTE_``name``, or the default where it is unset or empty."""
    return os.environ.get(f"SEMROUTE_{name}") or default


def is_on(options: argparse.Namespace, name: str) -> bool:
    """Whether a switch is on whose twin may say so, too; raises ``ValueError``."""
    word: str = getattr(options, name).lower()
    if word not in _SWITCH:
        raise ValueError(f"SEMROUTE_{name.upper()} must be 1 or 0")
    return _SWITCH[word]


def add_folder(command: argparse.ArgumentParser, name: str) -> None:
    """--profiles or --utterances."""
    command.add_argument(
        f"--{name}",
        default=twin(name.upper()),
        metavar="DIR",
        help=f"the folder of {name} (SEMROUTE_{name.upper()}; default: ./{name}, or the "
        "built-in ones where there is none)",
    )


def add_home(command: argparse.ArgumentParser, what: str) -> None:
    """--home; ``what`` lies there."""
    command.add_argument(
        "--home",
        default=twin("HOME"),
        metavar="DIR",
        help=f"where {what} (SEMROUTE_HOME; default: the user's cache)",
    )


def add_server(command: argparse.ArgumentParser) -> None:
    """--server, for commands that ask one."""
    command.add_argument(
        "--server",
        default=twin("ADDRESS", "127.0.0.1:50051"),
        metavar="HOST:PORT",
        help="the server to ask (SEMROUTE_ADDRESS; default: %(default)s)",
    )
