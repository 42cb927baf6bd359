"""``complete --batch``: an answer for every line of a file, at any number of sittings."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from semroute import RouterClient, RouterError
from semroute_service.cli import items, output
from semroute_service.cli.answering import Answering, Item
from semroute_service.cli.journal import Journal, JournalError, digest
from semroute_service.cli.progress import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from typing import Any

_BLANK, _UNASKED = -2, -1
"""In the place of a row's place in the journal."""


def complete_batch(options: argparse.Namespace) -> int:
    """Every line of the input has one line in the output, in order; the file appears whole."""
    if options.concurrency < 1 or not (options.wait >= 0 and options.timeout > 0):
        return output.fail("--concurrency must be at least 1, --wait 0, --timeout over 0", status=2)
    try:
        with Path(options.batch).open("rb") as source:
            if not source.seekable():
                return output.fail(f"{options.batch} must be a file; it is read twice", status=2)
            return _begin(options, source)
    except (OSError, ValueError) as error:
        return output.fail(items.unreadable(options.batch, error), status=2)


def _begin(options: argparse.Namespace, source: BinaryIO) -> int:
    try:
        with Journal(Path(options.out), items.given(options)) as journal:
            return _run(options, source, journal)
    except JournalError as error:
        return output.fail(str(error), status=2)
    except RouterError as error:
        output.failed(error, options)
        return 2
    except OSError as error:
        return output.fail(f"{options.out}: {error.strerror}")


def _run(options: argparse.Namespace, source: BinaryIO, journal: Journal) -> int:
    places, errors = _places(source, journal, again=options.retry_errors)
    total = len(places) - places.count(_BLANK)
    kept = total - places.count(_UNASKED)
    progress = Progress(total, kept, errors, journal.spent.cost_usd)
    if journal.resumed:
        _tell(options, journal, progress)
    journal.forget()
    answering = Answering(
        _unasked(source, places, items.given(options)),
        journal,
        places,
        progress,
        concurrency=options.concurrency,
        timeout=options.timeout,
        wait=options.wait,
    )
    try:
        if progress.done < total:
            asyncio.run(_answer(options.server, answering))
    finally:
        progress.close()
    if progress.done == total:
        journal.publish(places)
    return _sum_up(options, answering, kept)


def _places(source: BinaryIO, journal: Journal, *, again: bool) -> tuple[array[int], int]:
    """Where the row of each line stands in the journal, and how many of the rows are errors."""
    places = array("q")
    before = journal.errors.left
    for line, text in items.lines(source):
        places.extend([_BLANK] * (line - 1 - len(places)))
        key = digest(text)
        place = journal.answers.take(key)
        if place is None and not again:
            place = journal.errors.take(key)
        places.append(_UNASKED if place is None else place)
    return places, before - journal.errors.left


def _unasked(source: BinaryIO, places: array[int], defaults: Mapping[str, Any]) -> Iterator[Item]:
    source.seek(0)
    for line, text in items.lines(source):
        if line <= len(places) and places[line - 1] == _UNASKED:
            yield _item(line, text, defaults)


def _item(line: int, text: str, defaults: Mapping[str, Any]) -> Item:
    key = digest(text)
    try:
        read = items.read(text, defaults, items.COMPLETE_KEYS)
        return Item(line, key, read.get("id"), items.complete_request(read))
    except items.UNASKABLE as error:
        return Item(line, key, error=items.wrong(error))


async def _answer(server: str, answering: Answering) -> None:
    """Run until all is answered, or until a signal: the first lets answers on their way arrive."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task

    def end(sign: signal.Signals) -> None:
        if answering.stopped:
            task.cancel()
        else:
            answering.progress.say("what is on its way is taken in; once more leaves it behind")
            answering.stop(f"ended by {sign.name}", status=128 + sign)

    for sign in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(sign, end, sign)
    async with RouterClient(server) as client:
        try:
            await answering.run(client)
        except asyncio.CancelledError:
            if not answering.stopped:
                raise


def _tell(options: argparse.Namespace, journal: Journal, progress: Progress) -> None:
    """What an earlier run has left."""
    failed = f", {progress.failed} of them with an error" if progress.failed else ""
    progress.say(f"going on: {progress.done} of {progress.total} lines are done{failed}")
    if progress.failed:
        progress.say("--retry-errors asks those with an error again")
    if journal.cut_off:
        many = len(journal.cut_off)
        progress.say(f"{many} were cut off half-way, which may have cost something; asked again")
    if journal.answers.left:
        progress.say(
            f"{options.batch} has changed: {journal.answers.left} answers belong to lines that are "
            "no longer in it"
        )
    if journal.dropped:
        progress.say(f"{journal.dropped} lines of {journal.path} are damaged and count for nothing")


def _sum_up(options: argparse.Namespace, answering: Answering, kept: int) -> int:
    progress, spent = answering.progress, answering.journal.spent
    left = progress.total - progress.done
    if options.json:
        output.print_json(
            {
                "answered": progress.done - progress.failed,
                "failed": progress.failed,
                "left": left,
                "kept": kept,
                **asdict(spent),
                "seconds": round(progress.seconds, 3),
                "stopped": answering.stopped or None,
            }
        )
    elif left:
        output.fail(
            f"{answering.stopped}; {left} of {progress.total} lines are left, and the same command "
            "again goes on from here"
        )
    else:
        print(
            f"{progress.done - progress.failed} answered, {progress.failed} failed: {options.out} "
            f"[{spent.prompt_tokens + spent.completion_tokens} tokens; {spent.cost_usd:.6f} USD; "
            f"{progress.seconds:.1f} s]",
            file=sys.stderr,
        )
    return (answering.status or 1) if left else int(progress.failed > 0)
