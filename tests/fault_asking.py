"""A plain HTTP client of the fault server, which notes what it gets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from semroute_service.faults import FaultServer, fault_server

if TYPE_CHECKING:
    from collections.abc import Mapping

GENEROUS = 20.0
"""Seconds, against hanging only."""
PATIENCE = 0.25
"""Seconds after which what is silent is taken to be silent for ever."""
QUESTION = "how is it?"
KEY = "canary-key-1f2e"


@dataclass
class Seen:
    """What a client got: the headers, the body, and how it ended."""

    ending: str
    """``whole`` as HTTP knows it, ``silent``, ``broken`` within the body, or ``refused`` before."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def events(self) -> list[Any]:
        """The data of the events, parsed where that can be done."""
        found: list[Any] = []
        for line in self.body.split(b"\n"):
            if line.startswith(b"data:"):
                data = line.removeprefix(b"data: ")
                try:
                    found.append(json.loads(data))
                except ValueError:
                    found.append(data)
        return found

    @property
    def text(self) -> str:
        """The tokens, one after the other."""
        choices = [event["choices"][0] for event in self._chunks if event["choices"]]
        return "".join(choice["delta"].get("content", "") for choice in choices)

    @property
    def finish(self) -> str | None:
        """The finish reason."""
        reasons = [event["choices"][0]["finish_reason"] for event in self._chunks[1:-1]]
        return next((reason for reason in reasons if reason), None)

    @property
    def is_done(self) -> bool:
        return self.events[-1:] == [b"[DONE]"]

    @property
    def _chunks(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, dict) and "choices" in event]


async def ask(
    server: FaultServer,
    model: str,
    *,
    stream: bool = True,
    patience: float = PATIENCE,
    **body: Any,
) -> Seen:
    """Ask, and stop listening after so many seconds of silence, or when there is no end."""
    timeout = aiohttp.ClientTimeout(total=max(GENEROUS * patience, 1), sock_read=patience)
    asked = {"model": model, "stream": stream, "stream_options": {"include_usage": True}}
    asked["messages"] = [{"role": "user", "content": QUESTION}]
    headers = {"authorization": f"Bearer {KEY}"}
    seen = Seen("refused")
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        try:
            async with session.post(server.url + "/chat/completions", json=asked | body) as answer:
                seen = Seen("broken", answer.status, answer.headers)
                async for chunk in answer.content.iter_any():
                    seen.body += chunk
                seen.ending = "whole"
        except TimeoutError:
            seen.ending = "silent"
        except aiohttp.ClientError:
            pass
    return seen


async def see(model: str, **rest: Any) -> Seen:
    """What one request for ``model`` gets."""
    async with fault_server() as server:
        return await ask(server, model, **rest)


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()
