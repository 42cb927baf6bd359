"""``serve``: the server as a process."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import sys
from typing import TYPE_CHECKING

from semroute_classifier.documents import ConfigError
from semroute_classifier.encoders import EncoderError
from semroute_service.cli import LOG_LEVELS, output
from semroute_service.cli.files import folder
from semroute_service.errors import SemrouteError
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
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = Settings(
        listen=options.listen,
        profile=options.profile,
        profiles=folder("profiles", options.profiles),
        utterances=folder("utterances", options.utterances),
        encoder=options.encoder,
        home=Path(options.home).expanduser() if options.home else default_home(),
    )
    try:
        return _run(settings)
    except (ConfigError, EncoderError, SemrouteError, OSError) as error:
        return output.fail(str(error))


def _run(settings: Settings) -> int:
    # The encoder's thread gives the event loop its turn ten times as soon as Python would have it.
    sys.setswitchinterval(0.0005)
    if sys.platform == "win32":
        return asyncio.run(_serve(settings))
    import uvloop

    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    server = Server(settings)
    for warning in server.warnings:
        _log.warning("%s", warning)
    host = settings.listen.rpartition(":")[0]
    if not _is_loopback(host):
        _log.warning("%s is open to the network: no TLS, no authentication", settings.listen)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(sign, stopped.set)
    port = await server.start()
    _log.info("listening on %s:%d; warming up", host, port)
    try:
        ready = asyncio.create_task(server.ready())
        told = asyncio.create_task(stopped.wait())
        await asyncio.wait({ready, told}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            print(f"serving on {host}:{port}", flush=True)
            await told
            _log.info("stopping: letting calls finish")
        else:
            ready.cancel()
        told.cancel()
    finally:
        await server.stop()
    return 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
