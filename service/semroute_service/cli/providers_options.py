"""The options of ``providers``. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

import argparse

_EXAMPLES = """\
examples:
  semroute providers                    all of them, and whose key is set
  semroute providers groq               one: its address, prices, what it refuses
  semroute providers --json             for programs
  SEMROUTE_PROVIDERS=ours.yaml semroute providers
                                        with those of your own file, which has the same form
"""


def add_providers(command: argparse.ArgumentParser) -> None:
    """The whole command."""
    command.description = (
        "Show the catalogue of providers: how each is spoken to, where it stands, and whether the "
        "environment variable of its key is set. A key itself is never shown. No server is needed, "
        "and nobody is asked."
    )
    command.epilog = _EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("name", nargs="?", metavar="NAME", help="show everything about this one")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run="providers:providers")
