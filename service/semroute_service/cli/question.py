"""One question to a running server, and its answer printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from semroute import RouterError, SyncRouterClient
from semroute_service.cli import output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from google.protobuf.message import Message

_Answer = TypeVar("_Answer", bound="Message")


def put(
    options: argparse.Namespace,
    question: Callable[[SyncRouterClient], _Answer],
    show: Callable[[_Answer], None],
) -> int:
    """Ask ``options.server``, and print its answer as JSON where that is wanted or else with
    ``show``; returns the exit status."""
    try:
        with SyncRouterClient(options.server) as client:
            answer = question(client)
    except RouterError as error:
        return output.failed(error, options)
    if options.json:
        output.print_json(output.as_dict(answer))
    else:
        show(answer)
    return 0
