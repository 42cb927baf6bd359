"""A batch of ``semroute complete`` that is ended, or loses its server, and goes on afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from desk import (
    BROKEN,
    SEMROUTE,
    Desk,
    Place,
    answers,
    desk,
    ended,
    placed,
    queries,
    quoted,
    running,
    simple,
    until,
)
from embedding_server import Slow, embedding_server
from processes import run
from semroute_service.cli import main
from semroute_service.testing import running_server
from terminal import on_terminal
from upstream import GENEROUS, Status, profile, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


async def test_a_killed_run_is_gone_on_with(place: Place) -> None:
    """After kill -9 no line that has a row is asked again, and each stands in OUT once, in order;
    those on their way are given up by the server at once, and asked again."""
    asked = queries(40)
    place.write(*quoted(asked))
    place.desk.held = {"query 3", "query 11"}
    async with running(place, "--concurrency", 4) as process:
        await until(lambda: place.partial.exists() and len(place.kept) >= 15)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    kept = set(place.kept)
    assert not {3, 11} & kept
    assert not place.out.exists()
    await until(lambda: place.desk.held <= set(place.desk.left))
    place.desk.free.set()
    async with running(place, "--json") as process:
        again = await ended(process)
    assert again.status == 0
    assert f"{len(kept)} of 40 lines are done" in again.err
    assert "were cut off half-way" in again.err
    assert json.loads(again.out)["kept"] == len(kept)
    assert [(row["line"], row["text"]) for row in place.rows] == list(
        enumerate(answers(asked), start=1)
    )
    counts = place.desk.asked
    assert {counts[f"query {line}"] for line in kept} == {1}
    assert counts["query 3"] == counts["query 11"] == 2
    assert max(counts.values()) <= 2
    assert not place.partial.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_answers_arrive(place: Place, sign: signal.Signals) -> None:
    """After the first signal nothing more is asked, what is on its way is kept, and how to go on
    is said."""
    place.write(*quoted(queries(10)))
    place.desk.held = {"query 3", "query 5"}
    async with running(place, "--concurrency", 2) as process:
        await until(lambda: place.desk.now == 2 and len(place.desk.bodies) == 5)
        process.send_signal(sign)
        await asyncio.sleep(0.2)
        place.desk.free.set()
        told = await ended(process)
    assert told.status == 128 + sign
    assert sorted(place.kept) == [1, 2, 3, 4, 5]
    assert not place.desk.left
    assert f"ended by {sign.name}; 5 of 10 lines are left, and the same command" in told.err
    assert "Traceback" not in told.err
    again = await run(*SEMROUTE, *place.command())
    assert (again.status, place.texts) == (0, answers(queries(10)))
    assert set(place.desk.asked.values()) == {1}


async def test_a_second_signal_leaves_them(place: Place) -> None:
    """After the second signal the run ends at once, and the next one says what was cut off."""
    place.write(*quoted(queries(10)))
    place.desk.held = {"query 3", "query 5"}
    async with running(place, "--concurrency", 2) as process:
        await until(lambda: place.desk.now == 2 and len(place.desk.bodies) == 5)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.2)
        told = await ended(process)
    assert told.status == 130
    assert "Traceback" not in told.err
    await until(lambda: len(place.desk.left) == 2)
    place.desk.free.set()
    again = await run(*SEMROUTE, *place.command())
    assert "2 were cut off half-way" in again.err
    assert (again.status, place.texts) == (0, answers(queries(10)))


async def test_two_runs_at_once_are_refused(place: Place) -> None:
    """While one run works on OUT another is refused, and does no harm to the first."""
    place.write(*quoted(queries(3)))
    place.desk.held = {"query 2"}
    async with running(place) as process:
        await until(lambda: place.partial.exists() and len(place.kept) == 2)
        second = await run(*SEMROUTE, *place.command())
        assert second.status == 2
        assert f"another run is at work on {place.partial}; wait for it" in second.err
        place.desk.free.set()
        assert (await ended(process)).status == 0
    assert place.texts == answers(queries(3))
    assert set(place.desk.asked.values()) == {1}


async def test_a_server_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    """A server that goes away in the middle fails no line: what it had in hand is asked again once
    it is back, and nothing else is."""
    async with desk() as upstream:
        upstream.held = {"query 4"}
        async with running_server(profile=simple(upstream), drain_seconds=0.1) as server:
            place = Place(tmp_path, server, upstream)
            place.write(*quoted(queries(8)))
            async with running(place, "--concurrency", 1) as process:
                await until(lambda: upstream.asked["query 4"] == 1)
                await server.server.stop()
                await until(lambda: bool(upstream.left))
                upstream.free.set()
                async with running_server(profile=simple(upstream), listen=server.address):
                    told = await ended(process)
    assert told.status == 0, told.err
    assert place.texts == answers(queries(8))
    assert upstream.asked == {**dict.fromkeys(queries(8), 1), "query 4": 2}


async def test_a_server_that_stays_away_ends_the_run(tmp_path: Path) -> None:
    """When nobody has answered for as long as was said, the run ends; no line is failed for it."""
    async with desk() as upstream:
        upstream.held = {"query 2"}
        async with running_server(profile=simple(upstream), drain_seconds=0.1) as server:
            place = Place(tmp_path, server, upstream)
            place.write(*quoted(queries(3)))
            async with running(place, "--concurrency", 1, "--wait", 0.5) as process:
                await until(lambda: upstream.asked["query 2"] == 1)
                await server.server.stop()
                told = await ended(process)
    assert told.status == 1
    assert "the server is away; waiting up to 0.5 s" in told.err
    assert "no server has answered for 0.5 s; 2 of 3 lines are left" in told.err
    assert place.kept == [1]


async def test_a_server_that_is_starting_is_waited_for(tmp_path: Path) -> None:
    """A server that listens but is not ready yet is waited for, and then asked."""
    async with desk() as upstream:
        with embedding_server() as embedder:
            embedder.then(Slow(0.005))  # the utterances take a while
            served = simple(upstream, classifier={"encoder": {"model": "far"}})
            served["backends"]["embedder"] = {"provider": "vllm", "url": embedder.url}
            far = {"backend": "embedder", "id": embedder.model, "kind": "embedding"}
            served["models"]["far"] = far
            async with running_server(served, encoder="", wait=False) as server:
                place = Place(tmp_path, server, upstream)
                place.write('"one"')
                warm = asyncio.create_task(server.server.ready())
                batch = asyncio.create_task(asyncio.to_thread(main, place.command()))
                await until(place.partial.exists)
                assert not warm.done()
                assert await batch == 0
                await warm
    assert place.texts == ["re one"]


async def test_a_server_that_cannot_serve_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What keeps a server from answering at all ends the run with its reason; no line fails."""
    missing = str(tmp_path / "nothing")
    async with desk() as upstream, running_server(encoder=missing, wait=False) as server:
        place = Place(tmp_path, server, upstream)
        place.write('"one"')
        assert await asyncio.to_thread(main, place.command()) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


async def test_a_signal_ends_a_pause(tmp_path: Path) -> None:
    """A run that waits for a backend ends at once when it is told to, and what it waited with is
    left for the next one."""
    limited = Status(429, headers={"retry-after": "100"})
    async with upstream(limited) as server, running_server(profile=profile(server)) as served:
        place = Place(tmp_path, served, Desk())
        place.write(*quoted(queries(4)))
        async with running(place, "--concurrency", 2, "--timeout", 5) as process:
            assert process.stderr
            async with asyncio.timeout(3 * GENEROUS):
                said = await process.stderr.readuntil(b"waiting up to 300 s\n")
            process.send_signal(signal.SIGTERM)
            told = await ended(process)
    assert b"asked to be left alone" in said or b"provider_rate_limit" in said
    assert told.status == 128 + signal.SIGTERM
    assert "ended by SIGTERM; 4 of 4 lines are left" in told.err
    assert place.kept == []


async def test_an_answer_that_breaks_off_begins_again(tmp_path: Path) -> None:
    """Nobody reads along, so another model may start over; the row holds its answer alone, and
    what both have cost. Where there is no other, the line fails."""
    async with desk() as dead, desk() as well:
        dead.replies = {"one": [BROKEN]}
        models = {name: {"price": {"input": 1, "output": 2}} for name in ("first", "second")}
        spare = profile(dead.url, well.url, behavior={"max_retries": 0}, models=models)
        async with running_server(profile=spare) as server:
            place = Place(tmp_path, server, dead)
            place.write('"one"')
            ended = await run(*SEMROUTE, *place.command())
        assert ended.status == 0, ended.err
        (row,) = place.rows
        assert (row["text"], row["model"], row["attempts"]) == ("re one", "second", 2)
        assert row["cost_usd"] > (11 * 1_000 + 7 * 2_000) / 1e9


async def test_progress_on_a_terminal(place: Place) -> None:
    """A bar shows how many of all lines are done, how many failed, and is gone in the end."""
    place.desk.held = {"query 3"}
    place.desk.replies["query 1"] = [500]
    place.write(*quoted(queries(3)))
    command = [*SEMROUTE, *place.command("--concurrency", 1)]
    async with on_terminal(*command, cwd=place.folder) as terminal:
        await terminal.sees("0/3")
        await terminal.sees("2/3")
        await terminal.sees("1 failed")
        place.desk.free.set()
        assert await terminal.end() == 1
    assert "\r\x1b[K2 answered, 1 failed: " in terminal.shown


async def test_control_c_on_a_terminal(place: Place) -> None:
    """Typed on a terminal it ends the run as well, and says how to go on."""
    place.desk.held = {"query 3"}
    place.write(*quoted(queries(5)))
    command = [*SEMROUTE, *place.command("--concurrency", 1)]
    async with on_terminal(*command, cwd=place.folder) as terminal:
        await until(lambda: place.desk.now == 1 and len(place.desk.bodies) == 3)
        os.kill(terminal.process.pid, signal.SIGINT)
        await terminal.sees("what is on its way is taken in; once more leaves it behind")
        place.desk.free.set()
        assert await terminal.end() == 130
    assert "2 of 5 lines are left" in terminal.shown
