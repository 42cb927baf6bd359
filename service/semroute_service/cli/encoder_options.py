"""The words of ``semroute encoder``. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

import argparse
import os

_SPEC = "auto, bundled, a folder or a hub id (SEMROUTE_ENCODER; default: %(default)s)"
_ABOUT = """\
Encoders turn texts into vectors. A local model is exported once to engines, which need no torch
and start in a fraction of a second: int8, which answers queries, and float32, which is exact. The
server builds them at its first start; build them ahead to have that start quick, or in an image.

examples:
  semroute encoder list                        what is known, what is built, how exact it is
  semroute encoder build BAAI/bge-m3           fetch and export a model before the server needs it
  semroute encoder verify bundled              compare what is kept with the original again
  semroute encoder bench bundled               how long does a query take on this machine?
"""


def add_encoder(command: argparse.ArgumentParser) -> None:
    """The command group with its commands."""
    command.description = _ABOUT
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    shown = parts.add_parser("list", help="show encoders, and which have engines")
    shown.description = "Show the encoders that can be named, and every engine that is kept."
    build = parts.add_parser("build", help="export a model to engines, verified")
    build.description = (
        "Export a model to engines and verify them, or say where they lie. A model that int8 makes "
        "another of is kept in float32 alone; of one over 1 GB int8 alone is kept."
    )
    build.add_argument("--again", action="store_true", help="build even if engines are kept")
    verify = parts.add_parser("verify", help="compare engines with the original")
    verify.description = (
        "Run the original in torch and every kept engine on known sentences, and print how alike "
        "their vectors are as cosines. The status is 1 where an engine is not as it must be."
    )
    bench = parts.add_parser("bench", help="time engines and the original")
    bench.description = (
        "Time one query at a time, as a router sees them, with each kept engine and with the "
        "original in torch; short queries have about 12 tokens, medium ones about 50."
    )
    bench.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="of all texts (default: %(default)s)"
    )
    for name, part in (("list", shown), ("build", build), ("verify", verify), ("bench", bench)):
        if part is not shown:
            default = os.environ.get("SEMROUTE_ENCODER") or "auto"
            part.add_argument("spec", nargs="?", default=default, metavar="SPEC", help=_SPEC)
        part.add_argument(
            "--home",
            default="",
            metavar="DIR",
            help="where engines are kept (SEMROUTE_HOME; default: the user's cache)",
        )
        part.add_argument("--json", action="store_true", help="print JSON")
        part.set_defaults(run=f"encoder:{name if part is not shown else 'show'}")
