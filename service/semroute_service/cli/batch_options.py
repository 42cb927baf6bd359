"""The words of ``semroute complete --batch``. Imports nothing heavy: every help needs them."""

from __future__ import annotations

import argparse

_EXAMPLES = """\
a batch:
  Every line of IN is a JSON string, or an object with query or messages and, if wanted, id, system,
  max_tokens, temperature, top_p, stop, seed, response_format, tools, tool_choice, profile, model,
  tenant, region, sensitivity, local_only, objective, max_cost, session_id. What a line leaves out
  comes from the options. OUT has a row for each line, in order: the answer, or its error.

  What has come so far is kept in OUT.partial. The same command again goes on where a run ended,
  however it ended, and asks nothing twice that has an answer.

  The status is 0 where every line has its answer, 1 where some failed or the run was ended, 2 where
  nothing can be asked, and 128 and the signal's number where a signal ended it.

examples:
  semroute complete "What is a Bloom filter?"
  semroute complete --batch in.jsonl --out out.jsonl --concurrency 32
  semroute complete --batch in.jsonl --out out.jsonl --retry-errors
  echo '{"id": "s1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}' > in.jsonl
"""


def add_batch(command: argparse.ArgumentParser) -> None:
    """--batch and what belongs to it."""
    command.epilog = _EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "--batch", metavar="IN", help="answer every line of IN, as described below"
    )
    command.add_argument("--out", metavar="OUT", help="where the batch's answers go, one a line")
    command.add_argument(
        "--concurrency",
        type=int,
        default=8,
        metavar="N",
        help="how many lines of a batch are asked at a time (default: %(default)s)",
    )
    command.add_argument(
        "--wait",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds to wait for a server that goes away or is starting, for one line's turn "
        "where it is busy or a provider limits the rate, and without any answer where no backend "
        "can be asked (default: %(default)s)",
    )
    command.add_argument(
        "--retry-errors",
        action="store_true",
        help="ask those lines of a batch again that have an error from an earlier run",
    )
