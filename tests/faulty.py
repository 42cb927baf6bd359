"""Fault servers behind a real semroute server, each with a key of its own.

    async with routed_to("cut:5", "ok") as (client, (shaky, spare)):
        told = await ask(client)
    spare.received  # what the second upstream was asked

The candidates are called first, second and third, each standing behind the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from semroute_service.faults import FaultServer, Received, fault_server, fingerprint
from upstream import GENEROUS, Told, profile, routed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute import RouterClient

QUESTION = "hello there"
"""What ``upstream.ask`` asks."""
KEYS = {
    "VLLM_API_KEY": "canary-of-the-first",
    "OPENAI_COMPATIBLE_API_KEY": "canary-of-the-second",
    "DEEPSEEK_API_KEY": "canary-of-the-third",
}
"""For each candidate the variable of its provider, and the key that no other upstream may see."""
NAMES = ("first", "second", "third")
PROVIDERS = ("vllm", "openai_compatible", "deepseek")
CLOCKS: dict[str, Any] = {
    "connect": 1,
    "headers": 0.6,
    "first_token": 0.6,
    "idle_bytes": 0.6,
    "idle_tokens": 0.6,
}
"""Short enough that no test waits for long, and long enough for a busy machine."""
BEHAVIOR: dict[str, Any] = {"max_retries": 2, "timeout_seconds": 5, "clocks": CLOCKS}


@contextlib.asynccontextmanager
async def routed_to(
    *models: str,
    behavior: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    seed: int = 1,
    **settings: Any,
) -> AsyncIterator[tuple[RouterClient, list[FaultServer]]]:
    """A client of a server whose candidates have these faults.

    ``behavior`` adds to BEHAVIOR, ``own`` to the models by their names; ``settings`` are the
    server's.
    """
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(fault_server(model, seed=seed)) for model in models
        ]
        names = NAMES[: len(models)]
        told = profile(
            *(server.url for server in servers),
            backends={n: {"provider": p} for n, p in zip(names, PROVIDERS, strict=False)},
            models={
                name: {"id": model, **(own or {}).get(name, {})}
                for name, model in zip(names, models, strict=True)
            },
            behavior=BEHAVIOR | (behavior or {}),
            governance={"allow_cloud": True},
        )
        yield await stack.enter_async_context(routed(told, **settings)), servers


def check(told: Told, servers: list[FaultServer]) -> None:
    """What holds whatever happened.

    Every upstream was asked as often as the record says, and with its own key only; the answer is
    finished or ends in an error; and no key and no word of an upstream's error came through.
    """
    record = told.answer.finish.attempts if told.answer.finish else told.answer.attempts
    for server, name, key in zip(servers, NAMES, KEYS.values(), strict=False):
        made = [attempt for attempt in record if attempt.model == name]
        assert len(server.received) == len(made), (name, told.failures)
        assert {request.key for request in server.received} <= {fingerprint(key)}, name
    assert (told.error is None) == (told.answer.finish is not None)
    assert "fault server" not in told.everything
    assert not any(key in told.everything for key in KEYS.values())


def calls(servers: list[FaultServer]) -> list[int]:
    """How often each upstream was asked."""
    return [len(server.received) for server in servers]


async def received(server: FaultServer, number: int = 1) -> Received:
    """The request of this number, once it has come."""
    async with asyncio.timeout(GENEROUS):
        while len(server.received) < number:
            await asyncio.sleep(0.01)
    return server.received[number - 1]
