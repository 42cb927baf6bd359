"""The ``semroute`` command.

Client commands need the base install only, so nothing heavy is imported before a command asks.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from semroute_service.cli.backends_options import add_backends
from semroute_service.cli.batch_options import add_batch
from semroute_service.cli.encoder_options import add_encoder
from semroute_service.cli.fault_server_options import add_fault_server
from semroute_service.cli.options import add_folder, add_home, add_server, twin
from semroute_service.cli.profile_options import add_profile, add_proof, add_strict
from semroute_service.cli.providers_options import add_providers
from semroute_service.cli.servers_options import add_servers
from semroute_service.cli.status_options import add_session, add_status

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_LEVELS = ("debug", "info", "warning", "error")
_EXAMPLES = """\
examples:
  semroute serve                                   start the router on 127.0.0.1:50051
  semroute decide "Fix this Snakemake rule"        which model would answer, and why
  semroute complete "What is a Bloom filter?"      the answer, streamed as it comes
  semroute decide --batch in.jsonl --out out.jsonl many decisions for a pipeline
  semroute profile recommend                       which profile fits this machine, and why
  semroute check                                   are my profiles and utterances right?
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    options = parser().parse_args(arguments)
    if not hasattr(options, "run"):
        parser().print_help()
        return 2
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    module, _, function = options.run.partition(":")
    try:
        command = getattr(importlib.import_module(f"semroute_service.cli.{module}"), function)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("semroute"):
            raise
        _say(f"{options.command} needs the server's parts ({error.name} is missing)")
        _say("install them: pip install 'semroute[server]'")
        return 1
    return int(command(options))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="semroute",
        description="Route queries to language models by task, tier and governance.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _serve(commands.add_parser("serve", help="start the router"))
    _decide(commands.add_parser("decide", help="ask which model would answer, and why"))
    _complete(commands.add_parser("complete", help="have a query answered, streamed"))
    add_status(commands.add_parser("status", help="show what a running server does"))
    add_session(commands.add_parser("session", help="end a session"))
    add_backends(commands.add_parser("backends", help="show which backends can be asked now"))
    _check(commands.add_parser("check", help="check profiles and utterances"))
    _detect(commands.add_parser("detect", help="show what there is to run on, and what fits it"))
    _init(commands.add_parser("init", help="copy starter profiles and utterances here"))
    _evaluate(commands.add_parser("evaluate", help="measure the classifier on known queries"))
    _utterances(commands.add_parser("utterances", help="count utterances, check them for doubts"))
    _explain(commands.add_parser("explain", help="show what the classifier makes of a query"))
    add_encoder(commands.add_parser("encoder", help="list, build, verify and time encoders"))
    add_profile(commands.add_parser("profile", help="list, choose, compare and make profiles"))
    add_providers(commands.add_parser("providers", help="list providers, and whose key is set"))
    add_servers(commands.add_parser("servers", help="write how to launch a profile's own servers"))
    add_fault_server(
        commands.add_parser("fault-server", help="start an upstream that fails on purpose")
    )
    demo = commands.add_parser("demo", help="start a server, route a few queries, stop it")
    demo.set_defaults(run="demo:demo")
    return top


def _serve(command: argparse.ArgumentParser) -> None:
    command.description = "Start the router. It prints 'serving on HOST:PORT' when it is ready."
    _folders(command)
    command.add_argument(
        "--profile",
        default=twin("PROFILE"),
        metavar="NAME",
        help="the active profile (SEMROUTE_PROFILE; default: the one that fits this machine, see "
        "semroute profile recommend)",
    )
    add_strict(command)
    command.add_argument(
        "--listen",
        default=twin("LISTEN", "127.0.0.1:50051"),
        metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (SEMROUTE_LISTEN; default: %(default)s)",
    )
    command.add_argument(
        "--encoder",
        default=twin("ENCODER"),
        metavar="E",
        help="auto, bundled, hashing, a folder or a hub id; overrides the profiles' "
        "(SEMROUTE_ENCODER)",
    )
    add_home(command, "artifacts and the ledger lie")
    command.add_argument(
        "--log-level",
        default=twin("LOG_LEVEL", "info"),
        choices=LOG_LEVELS,
        help="how much to log, to standard error (SEMROUTE_LOG_LEVEL; default: info)",
    )
    command.add_argument(
        "--session-idle",
        type=float,
        default=twin("SESSION_IDLE", "3600"),
        metavar="S",
        help="seconds after which an unused session ends (SEMROUTE_SESSION_IDLE; "
        "default: %(default)s)",
    )
    command.add_argument(
        "--debug-routing",
        action="store_const",
        const="1",
        default=twin("DEBUG_ROUTING", "0"),
        help="log how every request was routed, as JSON lines on standard error "
        "(SEMROUTE_DEBUG_ROUTING=1); no prompt is among it",
    )
    command.set_defaults(run="serve:serve")


def _decide(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ask a running server for a decision. No backend is called and nothing is spent."
    )
    command.add_argument("query", nargs="?", help="the query; - reads standard input")
    _asking(command)
    command.add_argument(
        "--explain", action="store_true", help="show the evidence and every candidate"
    )
    command.add_argument(
        "--batch",
        metavar="IN",
        help="decide every line of IN: a JSON object with query and, if wanted, profile, tenant, "
        "region, sensitivity, local_only, model; or a JSON string",
    )
    command.add_argument("--out", metavar="OUT", help="where the batch's results go, one a line")
    command.set_defaults(run="ask:decide")


def _complete(command: argparse.ArgumentParser) -> None:
    command.description = "Have a running server answer a query; the text comes as it is made."
    command.add_argument("query", nargs="?", help="the query; - reads standard input")
    _asking(command)
    command.add_argument("--system", metavar="TEXT", help="instructions to the model")
    command.add_argument("--max-tokens", type=int, metavar="N", help="the most tokens to generate")
    command.add_argument("--temperature", type=float, metavar="T", help="between 0 and 2")
    command.add_argument(
        "--explain",
        action="store_true",
        help="show evidence, candidates and attempts, to standard error",
    )
    add_batch(command)
    command.set_defaults(run="ask:complete")


def _check(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Read every profile and utterance file as the server would; report each mistake with "
        "file, line and key. Then prove, for every row and every kind of request, that governance "
        "lets nothing through that the profile forbids."
    )
    _folders(command)
    add_proof(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run="files:check")


def _detect(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Look for GPUs, SLURM, keys, encoders and the backends that profiles declare, for two "
        "seconds at most, and say which profile fits. Keys are never shown."
    )
    add_folder(command, "profiles")
    add_home(command, "built encoders lie")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run="detect:detect")


def _init(command: argparse.ArgumentParser) -> None:
    command.description = "Copy the starter profiles and utterances; nothing is overwritten."
    command.add_argument("folder", nargs="?", default=".", help="where to (default: here)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run="files:init")


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Measure the classifier. FILE has one JSON object a line: query, task ('none' is out of "
        "scope) and, where known, tier (low, medium, high) and acceptable (further tasks)."
    )
    command.add_argument("file", metavar="FILE", help="the queries, JSONL")
    _classifying(command)
    command.add_argument(
        "--report",
        metavar="OUT",
        help="write a page for people: figures, charts, every mistake (one HTML file)",
    )
    command.add_argument(
        "--cascade",
        choices=["on", "off"],
        default="off",
        help="let the static encoder answer where it is sure (default: off, the full encoder)",
    )
    command.set_defaults(run="evaluate:evaluate")


def _utterances(command: argparse.ArgumentParser) -> None:
    command.description = "Work on the utterances, which teach the router its tasks."
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lint = parts.add_parser("lint", help="find contradictions, repetitions and thin tasks")
    lint.description = (
        "Check utterances for texts that stand in two tasks or twice in one, for examples whose "
        "neighbours belong to another task, and for thin tasks and tiers. Errors make the status 1."
    )
    _encoder(lint)
    lint.add_argument("--strict", action="store_true", help="warnings make the status 1, too")
    lint.add_argument("--all", action="store_true", help="show every note, not the first 20")
    lint.add_argument(
        "--near",
        type=float,
        default=0.95,
        metavar="COSINE",
        help="how near two utterances say the same (default: %(default)s)",
    )
    lint.add_argument(
        "--fewest",
        type=int,
        default=10,
        metavar="N",
        help="how many utterances a task needs not to be thin (default: %(default)s)",
    )
    lint.set_defaults(run="utterances:lint")
    show = parts.add_parser("show", help="count the utterances of each task and tier")
    show.set_defaults(run="utterances:show")
    for part in (lint, show):
        part.add_argument(
            "folder",
            nargs="?",
            default=twin("UTTERANCES"),
            metavar="DIR",
            help="the utterances (SEMROUTE_UTTERANCES; default: ./utterances)",
        )
        part.add_argument("--json", action="store_true", help="print JSON")


def _explain(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Show what the classifier makes of a query, and on what evidence. No server is needed."
    )
    command.add_argument("query", help="the query; - reads standard input")
    _classifying(command)
    command.set_defaults(run="explain:explain")


def _classifying(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--utterances",
        default=twin("UTTERANCES"),
        metavar="DIR",
        help="the utterances to classify by (SEMROUTE_UTTERANCES; default: ./utterances)",
    )
    _encoder(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def _encoder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--encoder",
        default=twin("ENCODER", "auto"),
        metavar="E",
        help="auto, bundled, hashing, a folder or a hub id (default: %(default)s)",
    )


def _folders(command: argparse.ArgumentParser) -> None:
    for name in ("profiles", "utterances"):
        add_folder(command, name)


def _asking(command: argparse.ArgumentParser) -> None:
    add_server(command)
    command.add_argument("--profile", default="", metavar="NAME", help="a profile by name")
    command.add_argument("--model", default="", metavar="NAME", help="a model of the profile")
    command.add_argument("--tenant", default="", metavar="NAME", help="who asks")
    command.add_argument(
        "--region", default="", metavar="R", help="the region that the data must stay in"
    )
    command.add_argument(
        "--sensitivity",
        choices=["public", "internal", "confidential", "restricted"],
        help="how carefully the data must be handled",
    )
    command.add_argument(
        "--local-only", action="store_true", help="no model outside the building may see it"
    )
    command.add_argument(
        "--objective",
        choices=["cost", "latency", "quality", "balanced"],
        help="what to prefer among candidates (default: as the profile says)",
    )
    command.add_argument(
        "--max-cost", type=float, metavar="USD", help="the most that the request may cost"
    )
    command.add_argument("--session", default="", metavar="ID", help="a session id")
    command.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _say(text: str) -> None:
    print(f"semroute: {text}", file=sys.stderr)
