"""``serve``: the server as a process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import EncoderError
from semroute_service import records
from semroute_service.cli import LOG_LEVELS, output
from semroute_service.cli.choosing import NoProfileError, choose, warn_of_missing
from semroute_service.cli.files import folder
from semroute_service.cli.options import is_on
from semroute_service.errors import SemrouteError
from semroute_service.hosts import host_and_port, is_loopback
from semroute_service.server import Server
from semroute_service.settings import Settings, default_home

if TYPE_CHECKING:
    import argparse

_log = logging.getLogger("semroute")


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from pathlib import Path

    if options.log_level not in LOG_LEVELS:  # argparse does not look at a default
        return output.fail(f"the log level must be one of {', '.join(LOG_LEVELS)}", status=2)
    try:
        debug_routing, strict = is_on(options, "debug_routing"), is_on(options, "strict")
    except ValueError as error:
        return output.fail(str(error), status=2)
    if host_and_port(options.listen) is None:
        return output.fail("--listen wants HOST:PORT, such as 127.0.0.1:50051", status=2)
    if not options.session_idle > 0:
        return output.fail("the idle time of a session must be over 0 seconds", status=2)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if debug_routing:
        _log_routing()
    settings = Settings(
        listen=options.listen,
        profile=options.profile,
        profiles=folder("profiles", options.profiles),
        utterances=folder("utterances", options.utterances),
        encoder=options.encoder,
        home=Path(options.home).expanduser() if options.home else default_home(),
        session_idle_seconds=options.session_idle,
        debug_routing=debug_routing,
    )
    try:
        if not options.profile:
            chosen = choose(settings.profiles, settings.home, strict=strict)
            settings = replace(settings, profile=chosen)
        return _run(settings, is_named=bool(options.profile))
    except (ConfigError, EncoderError, NoProfileError, SemrouteError, OSError) as error:
        return output.fail(str(error))


def _log_routing() -> None:
    """Each record is a line of its own, whatever the log level, so that programs can read it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    records.log.addHandler(handler)
    records.log.setLevel(logging.INFO)
    records.log.propagate = False


def _run(settings: Settings, *, is_named: bool) -> int:
    # The encoder's thread gives the event loop its turn ten times as soon as Python would have it.
    sys.setswitchinterval(0.0005)
    if sys.platform == "win32":
        return asyncio.run(_serve(settings, is_named=is_named))
    import uvloop

    return uvloop.run(_serve(settings, is_named=is_named))


async def _serve(settings: Settings, *, is_named: bool) -> int:
    """Of a profile that is named, and so was not chosen to fit, what it lacks is told meanwhile."""
    server = Server(settings)
    for warning in server.warnings:
        _log.warning("%s", warning)
    host = settings.listen.rpartition(":")[0]
    if not is_loopback(host.strip("[]")):
        _log.warning("%s is open to the network: no TLS, no authentication", settings.listen)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(sign, stopped.set)
    port = await server.start()
    _log.info("listening on %s:%d; warming up", host, port)
    looking = None
    if is_named:
        looking = asyncio.create_task(warn_of_missing(server.status().active, settings.home))
    try:
        ready = asyncio.create_task(server.ready())
        told = asyncio.create_task(stopped.wait())
        await asyncio.wait({ready, told}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            # What the start has built stays; looking through it for garbage stalled all streams.
            gc.freeze()
            print(f"serving on {host}:{port}", flush=True)
            await told
            _log.info("stopping: letting calls finish")
        else:
            ready.cancel()
        told.cancel()
    finally:
        if looking:
            looking.cancel()
        await server.stop()
    return 0
