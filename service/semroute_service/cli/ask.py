"""``decide`` and ``complete``: what clients do. Needs the base install only."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from semroute import RouterError, SyncRouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.cli import output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_BATCH = 100
_KEYS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "query": ("text", str),
    "profile": ("text", str),
    "model": ("text", str),
    "tenant": ("text", str),
    "region": ("text", str),
    "sensitivity": ("text", str),
    "local_only": ("true or false", bool),
    "objective": ("text", str),
    "max_cost": ("a number", (int, float)),
    "session_id": ("text", str),
}
"""What a line of a batch may hold: what it must be, in words and as types. Null is unset."""
_NANO = 1_000_000_000
_UNASKABLE = (ValueError, OverflowError)
"""What the contract's messages raise where they cannot hold a number or a text."""


def decide(options: argparse.Namespace) -> int:
    """One decision, or a batch of them."""
    if bool(options.batch) == bool(options.query):
        return output.fail("give a query, or --batch IN --out OUT", status=2)
    if options.batch:
        if not options.out:
            return output.fail("--batch needs --out OUT", status=2)
        return _decide_batch(options)
    try:
        with SyncRouterClient(options.server) as client:
            decision = client.decide(
                _text(options.query),
                profile=options.profile,
                caller=_caller(vars(options)),
                preferences=_preferences(vars(options)),
                session_id=options.session,
                timeout=options.timeout,
            )
    except RouterError as error:
        return output.failed(error, options)
    except _UNASKABLE as error:
        return output.fail(str(error), status=2)
    if options.json:
        output.print_json(output.as_dict(decision))
    else:
        output.print_decision(decision, explain=options.explain)
    return 0


def complete(options: argparse.Namespace) -> int:
    """An answer, printed as it comes; what is said of it goes to standard error."""
    if not options.query:
        return output.fail("give a query, or - to read standard input", status=2)
    try:
        with (
            SyncRouterClient(options.server) as client,
            client.complete(
                _messages(options),
                profile=options.profile,
                caller=_caller(vars(options)),
                preferences=_preferences(vars(options)),
                session_id=options.session,
                sampling=pb.Sampling(
                    max_tokens=options.max_tokens, temperature=options.temperature
                ),
                timeout=options.timeout,
            ) as answer,
        ):
            for event in answer.events():
                if options.json:
                    output.print_json(output.as_dict(event))
                elif event.HasField("decision") and options.explain:
                    with contextlib.redirect_stdout(sys.stderr):
                        output.print_decision(event.decision, explain=True)
                else:
                    print(event.delta.text, end="", flush=True)
    except RouterError as error:
        if not options.json:
            print()
        return output.failed(error, options)
    except _UNASKABLE as error:
        return output.fail(str(error), status=2)
    finish = answer.finish
    assert finish
    if not options.json:
        reason = pb.FinishReason.Name(finish.reason).removeprefix("FINISH_REASON_").lower()
        cost = finish.cost_nano_usd / _NANO
        print()
        print(
            f"[{finish.model} on {finish.backend}; {reason}; "
            f"{finish.usage.completion_tokens} tokens; {cost:.6f} USD]",
            file=sys.stderr,
        )
        if options.explain:
            with contextlib.redirect_stdout(sys.stderr):
                _print_attempts(finish)
    return 0


def _print_attempts(finish: pb.Finish) -> None:
    rows = []
    for attempt in finish.attempts:
        failure = pb.ErrorClass.Name(attempt.error_class).removeprefix("ERROR_CLASS_").lower()
        outcome = failure if attempt.error_class else "answered"
        milliseconds = attempt.duration.ToMicroseconds() / 1000
        rows.append([attempt.model, attempt.backend, f"{milliseconds:.1f}", outcome])
    print("\nattempts")
    output.print_table(["model", "backend", "ms", "outcome"], rows)


def _decide_batch(options: argparse.Namespace) -> int:
    """Every line of the input has one line in the output, in order; the file appears whole."""
    try:
        # Not splitlines: JSON text may hold line separators other than these.
        lines = Path(options.batch).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return output.fail(f"{options.batch}: {error}")
    items = [_item(line, options) for line in lines if line.strip()]
    failed = 0
    try:
        with SyncRouterClient(options.server) as client, _appearing(Path(options.out)) as file:
            for done, row in enumerate(_rows(client, items, options.timeout), 1):
                failed += "error" in row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                _progress(done, len(items))
    except RouterError as error:
        return output.failed(error, options)
    except OSError as error:
        return output.fail(f"{options.out}: {error.strerror}")
    if options.json:
        output.print_json({"decided": len(items) - failed, "failed": failed})
    else:
        print(f"{len(items) - failed} decided, {failed} failed: {options.out}", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[TextIO]:
    """A file to write that takes the place of ``path`` whole, or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        # Half a surrogate pair, which UTF-8 cannot hold, becomes its JSON escape.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _rows(
    client: SyncRouterClient, items: list[dict[str, Any]], timeout: float
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(items), _BATCH):
        chunk = items[start : start + _BATCH]
        requests = [_request(item) for item in chunk if "error" not in item]
        results = iter(client.batch_decide(requests, timeout=timeout) if requests else [])
        for item in chunk:
            if "error" in item:
                yield item
                continue
            result = next(results)
            if isinstance(result, RouterError):
                yield {"query": item["query"], "error": output.error_dict(result)}
            else:
                yield {"query": item["query"], **output.row_of(result)}


def _item(line: str, options: argparse.Namespace) -> dict[str, Any]:
    """One line of a batch; what it leaves out comes from the command line."""
    defaults = {key: vars(options).get(key) for key in _KEYS if key != "query"}
    try:
        item = json.loads(line)
        if isinstance(item, str):
            item = {"query": item}
        if not isinstance(item, dict) or not isinstance(item.get("query"), str):
            raise ValueError('must be a JSON string, or an object with "query"')
        _check_keys(item)
        given = {key: value for key, value in item.items() if value is not None}
        merged = {**defaults, "session_id": options.session, **given}
        _request(merged)
    except (ValueError, OverflowError, RecursionError) as error:
        reason = {"code": "INVALID_ARGUMENT", "reason": "INVALID_REQUEST", "message": str(error)}
        return {"query": line, "error": reason}
    return merged


def _check_keys(item: dict[str, Any]) -> None:
    for key, value in item.items():
        if key not in _KEYS:
            raise ValueError(f"unknown key {key}; known: {', '.join(sorted(_KEYS))}")
        word, kind = _KEYS[key]
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{key} must be {word}")


def _request(item: dict[str, Any]) -> pb.DecideRequest:
    return pb.DecideRequest(
        query=pb.Query(
            messages=[pb.Message(role=pb.ROLE_USER, text=item["query"])],
            caller=_caller(item),
            session_id=item.get("session_id") or "",
        ),
        profile=item.get("profile") or "",
        preferences=_preferences(item),
    )


def _caller(item: dict[str, Any]) -> pb.Caller:
    word = (item.get("sensitivity") or "unspecified").upper()
    return pb.Caller(
        tenant=item.get("tenant") or "",
        region=item.get("region") or "",
        sensitivity=f"SENSITIVITY_{word}",
        local_only=bool(item.get("local_only")),
    )


def _preferences(item: dict[str, Any]) -> pb.Preferences:
    max_cost = item.get("max_cost")
    word = (item.get("objective") or "unspecified").upper()
    return pb.Preferences(
        model=item.get("model") or "",
        objective=f"OBJECTIVE_{word}",
        max_cost_nano_usd=None if max_cost is None else round(max_cost * _NANO),
        explain=bool(item.get("explain")),
    )


def _messages(options: argparse.Namespace) -> list[pb.Message]:
    messages = [pb.Message(role=pb.ROLE_USER, text=_text(options.query))]
    if options.system:
        messages.insert(0, pb.Message(role=pb.ROLE_SYSTEM, text=options.system))
    return messages


def _text(argument: str) -> str:
    return sys.stdin.read() if argument == "-" else argument


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done == total or done % _BATCH == 0):
        print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr)
