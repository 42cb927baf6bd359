"""The options of ``fault-server``. Imports nothing heavy: every command's help needs them."""

from __future__ import annotations

import argparse

_EXAMPLES = """\
examples:
  semroute fault-server --list                     every fault, with a sentence each
  semroute fault-server --listen 127.0.0.1:9000    listen there until Ctrl-C
  semroute fault-server cut:3 random:0.1           list these models, too
  semroute fault-server --log got.jsonl --seed 7   note what comes; the same chances every time
  curl http://127.0.0.1:9000/log                   what has come so far

  curl -N http://127.0.0.1:9000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "cut:5", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'

a profile that tries out what stands behind a model that breaks off in mid-answer:
  backends:
    shaky: {provider: vllm, url: "http://127.0.0.1:9000/v1"}
  models:
    primary: {backend: shaky, id: "cut"}           # the id picks the fault
    spare:   {backend: shaky, id: "ok"}
  routes:
    default: {model: primary, fallback_chain: [spare]}
  behavior: {max_retries: 2, timeout_seconds: 5}
a name with another parameter, such as cut:3, goes on the command line, too, so that it is listed.

bounds: no request lasts longer than 10 minutes, endless ends after 100,000 tokens (endless:N after
N), and the log of /log holds the last 10,000 requests. Keys are noted as a fingerprint, the first
12 digits of their SHA-256; what was asked is not noted.
"""


def add_fault_server(command: argparse.ArgumentParser) -> None:
    """The whole command."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.description = (
        "Start an OpenAI-compatible upstream that fails on purpose, to see what becomes of it: "
        "the\nmodel's name picks the fault. It prints 'fault server on http://HOST:PORT' when it "
        "is ready."
    )
    command.epilog = _EXAMPLES
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a name with a parameter of your own, to be listed beside the faults: a router may "
        "prefer models that the server lists; every name is served, listed or not",
    )
    command.add_argument(
        "--listen",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    command.add_argument(
        "--open-to-network",
        action="store_true",
        help="allow a HOST that others can reach; it asks nobody for a key",
    )
    command.add_argument("--log", metavar="FILE", help="append a JSON line for each request")
    command.add_argument(
        "--seed", type=int, metavar="N", help="make the model random choose the same every time"
    )
    command.add_argument(
        "--waiting",
        type=int,
        default=0,
        metavar="N",
        help="the queue's length that /metrics tells (default: %(default)s)",
    )
    command.add_argument("--list", action="store_true", help="list the faults and stop")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run="fault_server:fault_server")
