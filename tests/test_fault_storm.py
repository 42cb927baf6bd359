"""Random faults under load: callers before their first token are spared, and nobody is lied to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from faulty import BEHAVIOR, CLOCKS, KEYS, PROVIDERS
from semroute import RouterClient
from semroute_service.faults import RANDOM, FaultServer, fault_server, fingerprint, whole
from semroute_service.testing import running_server
from upstream import Told, ask, profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUESTS = 300
"""benchmarks/faults.py makes 2,000."""
CALLERS = 32
NAMES = [f"random:0.3{'0' * number}" for number in range(8)]
"""One fault by several names, each with a circuit of its own: one circuit would soon open, and the
storm be over."""
CALM = CLOCKS | dict.fromkeys(("headers", "first_token", "idle_bytes", "idle_tokens"), 2.0)
"""A healthy upstream is never silent for so long, even on a machine that is busy."""


@contextlib.asynccontextmanager
async def stormy() -> AsyncIterator[tuple[RouterClient, FaultServer, FaultServer]]:
    """A client, the primary and the fallback; a profile for each of NAMES."""
    async with fault_server(*NAMES, seed=5) as primary, fault_server() as spare:
        profiles = {
            f"p{number}": profile(
                primary.url,
                spare.url,
                backends={
                    "first": {"provider": PROVIDERS[0]},
                    "second": {"provider": PROVIDERS[1]},
                },
                models={"first": {"id": name}, "second": {"id": "ok"}},
                behavior=BEHAVIOR | {"max_retries": 1, "clocks": CALM},
            )
            for number, name in enumerate(NAMES)
        }
        async with (
            running_server(profiles=profiles, active="p0") as server,
            RouterClient(server.address) as client,
        ):
            yield client, primary, spare


async def storm(client: RouterClient, *, allow_restart: bool) -> dict[str, Told]:
    """What each caller was told, by its question; CALLERS ask at a time."""
    numbers = iter(range(REQUESTS))
    told: dict[str, Told] = {}

    async def caller() -> None:
        for number in numbers:
            question = f"what is the answer to number {number}?"
            told[question] = await ask(
                client,
                question,
                profile=f"p{number % len(NAMES)}",
                allow_restart=allow_restart,
            )

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return told


@pytest.mark.parametrize("allow_restart", [False, True], ids=["no restarts", "restarts"])
async def test_a_storm(monkeypatch: pytest.MonkeyPatch, allow_restart: bool) -> None:
    """With three requests in ten spoiled, all get a first token, what is finished is whole and
    one's own, what is not finished says so, and keys stay with their upstreams."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    async with stormy() as (client, primary, spare):
        told = await storm(client, allow_restart=allow_restart)
    assert len(told) == REQUESTS
    finished = {question: t for question, t in told.items() if not t.error}
    assert [q for q, t in finished.items() if t.text != whole(q)] == []
    broken = {question: t for question, t in told.items() if t.error}
    assert {str(t.error) for t in broken.values() if not t.deltas} == set()
    assert {t.error.reason for t in broken.values() if t.error} <= {"STREAM_INTERRUPTED"}
    assert all(t.text and whole(q).startswith(t.text) for q, t in broken.items())
    assert all(t.answer.finish is None for t in broken.values())
    assert not (broken and allow_restart)
    met = [request.fault for request in primary.received if request.fault in RANDOM]
    assert len(met) > 20, "the storm was none"
    for server, key in zip((primary, spare), KEYS.values(), strict=False):
        assert {request.key for request in server.received} == {fingerprint(key)}
