"""``decide --batch``: a decision for every line of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute import RouterError, SyncRouterClient
from semroute_service.cli import items, output
from semroute_service.cli.appearing import appearing
from semroute_service.cli.progress import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_BATCH = 100


def decide_batch(options: argparse.Namespace) -> int:
    """Every line of the input has one line in the output, in order; the file appears whole."""
    try:
        with Path(options.batch).open("rb") as source:
            defaults = items.given(options)
            asked = [_item(line, defaults) for _, line in items.lines(source)]
    except (OSError, ValueError) as error:
        return output.fail(items.unreadable(options.batch, error))
    progress = Progress(len(asked))
    try:
        with SyncRouterClient(options.server) as client, appearing(Path(options.out)) as file:
            for row in _rows(client, asked, options.timeout):
                progress.advance(failed="error" in row)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except RouterError as error:
        progress.close()
        return output.failed(error, options)
    except OSError as error:
        progress.close()
        return output.fail(f"{options.out}: {error.strerror}")
    progress.close()
    decided = len(asked) - progress.failed
    if options.json:
        output.print_json({"decided": decided, "failed": progress.failed})
    else:
        print(f"{decided} decided, {progress.failed} failed: {options.out}", file=sys.stderr)
    return 1 if progress.failed else 0


def _rows(
    client: SyncRouterClient, asked: list[dict[str, Any]], timeout: float
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(asked), _BATCH):
        chunk = asked[start : start + _BATCH]
        requests = [items.decide_request(item) for item in chunk if "error" not in item]
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


def _item(line: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """What one line asks, or what is wrong with it."""
    try:
        item = items.read(line, defaults, items.DECIDE_KEYS)
        items.decide_request(item)
    except items.UNASKABLE as error:
        return {"query": line, "error": items.wrong(error)}
    return item
