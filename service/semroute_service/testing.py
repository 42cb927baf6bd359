"""A real semroute server for tests: yours as well as ours.

    async with running_server(profile=PROFILE, utterances={"code": ["write a function"]}) as server:
        async with RouterClient(server.address) as client:
            decision = await client.decide("write a function that sorts")

It listens on a free port of the loopback interface, embeds with the hashing encoder unless told
otherwise, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_service.server import Server
from semroute_service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

ECHO_PROFILE: dict[str, Any] = {
    "models": {"echo": {"provider": "echo"}},
    "routes": {"default": {"model": "echo"}},
}
"""The smallest profile: everything goes to the built-in echo."""

UTTERANCES: dict[str, Any] = {
    "code_generation": {
        "low": ["write a python script", "write a function that adds two numbers"],
        "high": ["design and write a distributed scheduler in python with retries"],
    },
    "biomedical": {
        "low": ["what does this gene do"],
        "high": ["interpret the variants of this patient's genome"],
    },
    "none": {"utterances": ["what is the weather like tomorrow", "tell me a joke"]},
}
"""A small utterance set that the hashing encoder can tell apart."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready, and where it listens."""

    address: str
    server: Server


@contextlib.asynccontextmanager
async def running_server(
    profile: Mapping[str, Any] | None = None,
    utterances: Mapping[str, Any] | Path | None = None,
    *,
    profiles: Mapping[str, Mapping[str, Any]] | Path | None = None,
    active: str = "test",
    encoder: str = "hashing",
    wait: bool = True,
    **settings: Any,
) -> AsyncIterator[RunningServer]:
    """Serve ``profile`` (as its YAML would hold it), or several ``profiles`` by name or folder.

    ``utterances`` maps a task to its file's content, or to a plain list of texts. With ``wait``
    false the server may still be warming up. Further ``settings`` are those of ``Settings``.
    """
    with tempfile.TemporaryDirectory(prefix="semroute-test-") as folder:
        root = Path(folder)
        if not isinstance(profiles, Path):
            profiles = write_files(root / "profiles", profiles or {active: profile or ECHO_PROFILE})
        if not isinstance(utterances, Path):
            utterances = write_files(root / "utterances", utterances or UTTERANCES)
        server = Server(
            Settings(
                **{
                    "listen": "127.0.0.1:0",
                    "home": root / "home",
                    "drain_seconds": 1.0,
                    **settings,
                },
                profile=active,
                profiles=profiles,
                utterances=utterances,
                encoder=encoder,
            )
        )
        try:
            port = await server.start()
            if wait:
                await server.ready()
            yield RunningServer(f"127.0.0.1:{port}", server)
        finally:
            await server.stop()


def write_files(folder: Path, files: Mapping[str, Mapping[str, Any] | Sequence[str]]) -> Path:
    """Write ``<name>.yaml`` for each of ``files`` below ``folder``; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if hasattr(content, "keys") else {"utterances": list(content)}
        text = json.dumps(data, ensure_ascii=False, indent=1)  # JSON is YAML, and has no aliases
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder
