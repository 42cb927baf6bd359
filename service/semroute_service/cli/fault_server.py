"""``fault-server``: an upstream that fails on purpose, as a process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from semroute_service import faults
from semroute_service.cli import output
from semroute_service.hosts import host_and_port, is_loopback

if TYPE_CHECKING:
    import argparse
    from typing import TextIO


def fault_server(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, or list the faults."""
    if options.list:
        return _list(options)
    listening = host_and_port(options.listen)
    if listening is None:
        return output.fail("--listen wants HOST:PORT, such as 127.0.0.1:9000", status=2)
    host, port = listening
    if not (options.open_to_network or is_loopback(host)):
        return output.fail(
            f"others could reach {host}; say --open-to-network if that is wanted", status=2
        )
    try:
        with contextlib.ExitStack() as stack:
            log = None
            if options.log:
                log = stack.enter_context(Path(options.log).open("a", encoding="utf-8"))
            return asyncio.run(_serve(options, host, port, log))
    except faults.UnknownFaultError as error:
        return output.fail(f"{error}; --list names them", status=2)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return output.fail(f"cannot listen on {options.listen}; is the port taken?")
        return output.fail(str(error))


async def _serve(options: argparse.Namespace, host: str, port: int, log: TextIO | None) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(sign, stopped.set)
    async with faults.fault_server(
        *options.models, host=host, port=port, seed=options.seed, log=log
    ) as server:
        server.waiting = options.waiting
        if options.json:
            output.print_json({"address": server.address, "url": server.url})
        else:
            print(f"fault server on {server.address}", flush=True)
        await stopped.wait()
    return 0


def _list(options: argparse.Namespace) -> int:
    listed = faults.FAULTS.values()
    if options.json:
        output.print_json(
            [
                {"model": f.name, "example": f.example, "usage": f.usage, "is": f.says}
                for f in listed
            ]
        )
    else:
        output.print_table(
            ["model", "by default", "is"],
            [[f.usage, f.parameter.default if f.parameter else "", f.says] for f in listed],
        )
    return 0
