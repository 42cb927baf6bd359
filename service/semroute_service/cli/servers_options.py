"""The options of ``servers``. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_service.cli.options import add_folder, twin

if TYPE_CHECKING:
    import argparse

FORMATS = ("shell", "sbatch", "compose", "k8s", "modal")


def add_servers(command: argparse.ArgumentParser) -> None:
    """The whole command."""
    command.description = (
        "Write how to launch a profile's own vLLM servers. Nothing is written unless every model "
        "fits its GPU by estimate; what does not is told with the figures and what would fit."
    )
    command.add_argument(
        "--profile",
        default=twin("PROFILE"),
        metavar="NAME",
        help="the profile (SEMROUTE_PROFILE)",
    )
    add_folder(command, "profiles")
    command.add_argument(
        "--format",
        choices=FORMATS,
        help="scripts for a machine with GPUs, SLURM batch scripts, Docker Compose, Kubernetes, "
        "or Modal",
    )
    command.add_argument(
        "--out", metavar="DIR", help="the folder to write to (default: standard output)"
    )
    command.add_argument(
        "--check", action="store_true", help="only say whether every model fits its GPU"
    )
    command.set_defaults(run="servers:servers")
