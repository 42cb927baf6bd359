"""``decide`` and ``complete``: what clients do. Needs the base install only."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING

from semroute import RouterError, SyncRouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.cli import items, output, question
from semroute_service.cli.batch_complete import complete_batch
from semroute_service.cli.batch_decide import decide_batch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

_NOT_WHOLE = "the answer is not whole"


def decide(options: argparse.Namespace) -> int:
    """One decision, or a batch of them."""
    if wrong := _wrong(options):
        return output.fail(wrong, status=2)
    if options.batch:
        return decide_batch(options)
    try:
        request = items.decide_request(_asked(options))
    except items.UNASKABLE as error:
        return output.fail(str(error), status=2)
    return question.put(
        options,
        lambda client: client.decide(**items.arguments(request), timeout=options.timeout),
        partial(output.print_decision, explain=options.explain),
    )


def complete(options: argparse.Namespace) -> int:
    """One answer, or a batch of them."""
    if wrong := _wrong(options):
        return output.fail(wrong, status=2)
    if options.batch:
        return complete_batch(options)
    try:
        request = items.complete_request(_asked(options))
    except items.UNASKABLE as error:
        return output.fail(str(error), status=2)
    return _stream(request, options)


def _stream(request: pb.CompleteRequest, options: argparse.Namespace) -> int:
    """Print an answer as it comes; what is said of it goes to standard error."""
    begun, said, failures = False, False, list[pb.Attempt]()
    try:
        with (
            SyncRouterClient(options.server) as client,
            client.complete(**items.arguments(request), timeout=options.timeout) as answer,
        ):
            for event in answer.events():
                begun = True
                if event.HasField("attempt"):
                    failures.append(event.attempt)
                if options.json:
                    output.print_json(output.as_dict(event))
                elif event.HasField("decision") and options.explain:
                    with contextlib.redirect_stdout(sys.stderr):
                        output.print_decision(event.decision, explain=True)
                else:
                    print(event.delta.text, end="", flush=True)
                    said = said or bool(event.delta.text)
    except RouterError as error:
        if said:
            print()
        if options.explain and failures and not options.json:
            _print_attempts(failures)
        if begun and not error.reason and error.code.name == "UNAVAILABLE" and not options.json:
            where = options.server
            return output.fail(f"the server at {where} went away in the middle: {_NOT_WHOLE}")
        return output.failed(error, options)
    except KeyboardInterrupt:
        if said:
            print()
            output.fail(f"left in the middle: {_NOT_WHOLE}")
        raise
    finish = answer.finish
    assert finish
    if not options.json:
        reason = pb.FinishReason.Name(finish.reason).removeprefix("FINISH_REASON_").lower()
        cost = finish.cost_nano_usd / items.NANO
        print()
        print(
            f"[{finish.model} on {finish.backend}; {reason}; "
            f"{finish.usage.completion_tokens} tokens; {cost:.6f} USD]",
            file=sys.stderr,
        )
        if options.explain:
            _print_attempts(finish.attempts)
    return 0


def _print_attempts(attempts: Iterable[pb.Attempt]) -> None:
    """To standard error, as nothing of it is the answer."""
    rows = []
    for attempt in attempts:
        failure = pb.ErrorClass.Name(attempt.error_class).removeprefix("ERROR_CLASS_").lower()
        outcome = failure if attempt.error_class else "answered"
        milliseconds = attempt.duration.ToMicroseconds() / 1000
        rows.append([attempt.model, attempt.backend, f"{milliseconds:.1f}", outcome])
    with contextlib.redirect_stdout(sys.stderr):
        print("\nattempts")
        output.print_table(["model", "backend", "ms", "outcome"], rows)


def _wrong(options: argparse.Namespace) -> str:
    """What is wrong with how a query or a batch is given; empty where nothing is."""
    if bool(options.batch) == bool(options.query):
        return "give a query (- reads standard input), or --batch IN --out OUT"
    if bool(options.batch) != bool(options.out):
        return "--batch needs --out OUT" if options.batch else "--out needs --batch IN"
    if getattr(options, "retry_errors", False) and not options.batch:
        return "--retry-errors needs --batch IN"
    return ""


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The command line as a line of a batch."""
    query = sys.stdin.read() if options.query == "-" else options.query
    return {**items.given(options), "query": query, "explain": options.explain}
