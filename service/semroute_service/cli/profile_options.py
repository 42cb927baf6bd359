"""The words of ``semroute profile``. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

import argparse

from semroute_service.cli.options import add_folder, add_home, add_server, twin

_ABOUT = """\
A profile says who could answer: which models there are, which of them answers which task, what may
leave the building and what it may cost. The server starts with the one that is named, or with the
first in the order of hardware.rank whose requirements are all met.

examples:
  semroute profile list                        which profiles there are, and what each lacks here
  semroute profile recommend                   which one fits this machine, and why
  semroute profile new lab                     make one of your own by answering a few questions
  semroute profile diff t4_hybrid cloud_only   what differs
  semroute profile activate cloud_only         switch a running server
"""
_NAME = "a profile by name, or its file"


def add_profile(command: argparse.ArgumentParser) -> None:
    """The command group with its commands."""
    command.description = _ABOUT
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = parts.add_parser("list", help="show profiles, and what each requires and lacks here")
    listed.description = (
        "Show every profile in the order of choice, which of its requirements are met on this "
        "machine and which are missing. An arrow marks the one that a server would start with."
    )
    listed.set_defaults(run="profiles:show_all")

    show = parts.add_parser("show", help="show a profile: models, rows, where data may go, cost")
    show.add_argument("name", metavar="NAME", help=_NAME)
    show.set_defaults(run="profiles:show")

    recommend = parts.add_parser("recommend", help="say which profile fits this machine, and why")
    recommend.description = (
        "Say which profile a server would start with, why, and why not those before it. The "
        "status is 1 where none fits."
    )
    add_strict(recommend)
    recommend.set_defaults(run="profiles:recommend")

    check = parts.add_parser("check", help="check one profile")
    check.description = "Read one profile as the server would, and report each mistake."
    check.add_argument("name", metavar="NAME", help=_NAME)
    add_proof(check)
    check.set_defaults(run="profiles:check")

    diff = parts.add_parser("diff", help="say what differs between two profiles")
    diff.add_argument("first", metavar="A", help=_NAME)
    diff.add_argument("second", metavar="B", help=_NAME)
    diff.set_defaults(run="profiles:diff")

    activate = parts.add_parser("activate", help="switch a running server to a profile")
    activate.description = (
        "Make a profile the one that requests without a profile use. The server goes on serving."
    )
    activate.add_argument("name", metavar="NAME", help="a profile that the server has loaded")
    add_server(activate)
    activate.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds (default: %(default)s)"
    )
    activate.set_defaults(run="status:activate")

    new = parts.add_parser("new", help="make a profile by answering a few questions")
    _new(new)

    reference = parts.add_parser("reference", help="print every key that a profile may have")
    reference.description = (
        "Print every key with its type, default, meaning and example as a page; or as a JSON "
        "Schema, by which editors complete and check profiles."
    )
    reference.add_argument(
        "--format",
        choices=["markdown", "json-schema"],
        default="markdown",
        help="the page or the schema (default: %(default)s)",
    )
    reference.set_defaults(run="reference:reference")
    for part in (listed, show, recommend, check, diff, new):
        add_folder(part, "profiles")
    for part in (check, new):
        add_folder(part, "utterances")
    for part in (listed, recommend):
        add_home(part, "built encoders lie")
    for part in (listed, show, recommend, check, diff, activate, new):
        part.add_argument("--json", action="store_true", help="print JSON")


def add_proof(command: argparse.ArgumentParser) -> None:
    """--proof, for commands that check profiles."""
    command.add_argument(
        "--proof",
        action="store_true",
        help="list governance's rules, and which kinds of request are never served on which rows",
    )


def add_strict(command: argparse.ArgumentParser) -> None:
    """--strict, for commands that choose a profile."""
    command.add_argument(
        "--strict",
        action="store_const",
        const="1",
        default=twin("STRICT", "0"),
        help="choose a profile that requires nothing only where a local model server of its own "
        "answers (SEMROUTE_STRICT=1)",
    )


def _new(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Make a profile of your own. On a terminal, what no option says is asked; elsewhere it "
        "takes its default. Nothing is overwritten, and nothing is written that a server would "
        "refuse."
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the name, and the file's")
    command.add_argument(
        "--local",
        metavar="KIND",
        help="what the local model server is: vllm, ollama or openai_compatible (default: none)",
    )
    command.add_argument(
        "--url", metavar="URL", help="where it answers (default: the usual place of its kind)"
    )
    command.add_argument(
        "--models",
        metavar="IDS",
        help="which of its models, the smallest first (default: all that it lists)",
    )
    command.add_argument(
        "--cloud", metavar="PROVIDER", help="who may answer outside the building (default: none)"
    )
    command.add_argument("--cloud-model", metavar="ID", help="the name that the provider knows")
    command.add_argument(
        "--cloud-price",
        metavar="IN,OUT",
        help="what it costs in USD per million tokens, sent and answered, or none",
    )
    command.add_argument(
        "--stay",
        metavar="TASKS",
        help="tasks whose data must not leave the building, or none (default: biomedical,safety "
        "where a local model can answer them)",
    )
    command.add_argument("--reason", metavar="TEXT", help="why it must stay, for whoever asks")
    command.add_argument(
        "--monthly-limit", metavar="USD", help="the most to spend in a month, or none (default)"
    )
    command.add_argument(
        "--rank",
        type=int,
        metavar="N",
        help="its place in the order of choice (default: none, chosen only by name)",
    )
    command.set_defaults(run="profile_new:new")
