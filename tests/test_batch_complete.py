"""``semroute complete --batch``: many answers, at any number of sittings, none paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from embedding_server import Slow, embedding_server
from processes import Ended, run
from semroute_service.cli import main
from semroute_service.governance import DEFAULT_OUTPUT_TOKENS
from semroute_service.testing import running_server
from terminal import on_terminal
from upstream import DONE, GENEROUS, USAGE, finish, nobody, profile, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from semroute_service.testing import RunningServer

SEMROUTE = (sys.executable, "-m", "semroute_service.cli")
BROKEN = None
"""In the place of an answer: the connection breaks after the first word."""


@dataclass
class Desk:
    """An upstream that answers by what it is asked, and notes who was asked what, and how many at
    a time. A text in ``replies`` is answered by its next reply, a status or chunks, as long as it
    has one; one in ``held`` waits for ``free``."""

    replies: dict[str, list[int | list[dict[str, Any]] | None]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=lambda: dict(USAGE))
    left: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    url: str = ""

    @property
    def asked(self) -> Counter[str]:
        """How often each text was asked."""
        return Counter(body["messages"][-1]["content"] for body in self.bodies)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.bodies.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if text in self.held:
                await self.free.wait()
            await asyncio.sleep(0.005)  # long enough for others to come
            return await self._reply(text, request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.append(text)
            raise
        finally:
            self.now -= 1

    async def _reply(self, text: str, request: web.Request) -> web.StreamResponse:
        replies = self.replies.get(text)
        reply = replies.pop(0) if replies else [say(f"re {text}"), finish()]
        if isinstance(reply, int):
            return web.Response(status=reply, headers={"retry-after": "0"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in [say("half")] if reply is BROKEN else [*reply, {"usage": self.usage}]:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        if reply is BROKEN:
            assert request.transport
            request.transport.abort()
            return response
        await response.write(DONE)
        return response


@contextlib.asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Serve on loopback."""
    server = Desk()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.complete)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield server
    finally:
        server.free.set()
        await runner.cleanup()


@dataclass
class Place:
    """A folder with a batch in it, and the server that is asked."""

    folder: Path
    server: RunningServer
    desk: Desk

    @property
    def out(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def partial(self) -> Path:
        return self.folder / "out.jsonl.partial"

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in self.out.read_text(encoding="utf-8").strip().split("\n")
        ]

    @property
    def texts(self) -> list[str | None]:
        return [row.get("text") for row in self.rows]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The journal's lines."""
        lines = self.partial.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def kept(self) -> list[int]:
        """The lines that have a row in the journal."""
        return [entry["line"] for entry in self.entries if entry.get("row")]

    def write(self, *lines: Any) -> None:
        """The input; what is not text is written as JSON."""
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (self.folder / "in.jsonl").write_text("".join(f"{t}\n" for t in texts), encoding="utf-8")

    def command(self, *arguments: object) -> list[str]:
        files = ("--batch", self.folder / "in.jsonl", "--out", self.out)
        server = ("--server", self.server.address)
        return ["complete", *map(str, (*files, *server, *arguments))]


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Everything goes to the desk."""
    async with desk() as upstream, running_server(profile=simple(upstream)) as server:
        yield Place(tmp_path, server, upstream)


@pytest.fixture
def semroute(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Ended]]:
    """Runs the batch while the server goes on serving."""

    async def batch(*arguments: object) -> Ended:
        capsys.readouterr()
        status = await asyncio.to_thread(main, place.command(*arguments))
        return Ended(status, *capsys.readouterr())

    return batch


def simple(upstream: Desk, **rest: Any) -> dict[str, Any]:
    """One model, which is not asked twice by the server itself."""
    capable = {"capabilities": ["tools", "images", "json_schema"]}
    return profile(
        upstream.url, behavior={"max_retries": 0}, **{"models": {"first": capable}, **rest}
    )


@contextlib.asynccontextmanager
async def running(place: Place, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """The batch as a process of its own; it is surely gone afterwards."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *SEMROUTE, *place.command(*arguments), stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """How it ended, once it has."""
    async with asyncio.timeout(3 * GENEROUS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    async with asyncio.timeout(3 * GENEROUS):
        while not condition():
            await asyncio.sleep(0.01)


def queries(count: int, start: int = 1) -> list[str]:
    return [f"query {number}" for number in range(start, start + count)]


def quoted(texts: list[str]) -> list[str]:
    """Each as a line of the input."""
    return [json.dumps(text) for text in texts]


def answers(texts: list[str]) -> list[str]:
    return [f"re {text}" for text in texts]


async def test_a_batch_is_answered_in_order(place: Place, semroute: Any) -> None:
    """Every line that is not blank gets its row, in order; wrong and failed ones an error there."""
    place.desk.replies["broken upstream"] = [500]
    place.write(
        {"id": "a", "query": "first"},
        '"second"',
        "",
        "{broken",
        {"id": 7, "query": "third", "profile": "nope"},
        {"query": "broken upstream"},
        {"query": "two lines\u2028in one text"},
    )
    ended = await semroute("--concurrency", 3)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(f"3 answered, 3 failed: {place.out} [54 tokens; 0.000000 USD; ")
    assert [(row["line"], row.get("id")) for row in place.rows] == [
        *((1, "a"), (2, None), (4, None), (5, 7), (6, None), (7, None))
    ]
    first, _, wrong, unknown, failed, last = place.rows
    assert first == {
        "line": 1,
        "id": "a",
        "text": "re first",
        "finish_reason": "stop",
        "model": "first",
        "backend": "first",
        "task": None,
        "tier": None,
        "confidence": first["confidence"],
        "cost_usd": 0.0,
        "attempts": 1,
        "usage": {**USAGE, "cached_tokens": 0, "reasoning_tokens": 0, "estimated": False},
    }
    assert last["text"] == "re two lines\u2028in one text"
    assert (wrong["error"]["code"], wrong["error"]["reason"]) == (
        *("INVALID_ARGUMENT", "INVALID_REQUEST"),
    )
    assert unknown["error"]["reason"] == "UNKNOWN_PROFILE"
    assert failed["error"]["code"] == "UNAVAILABLE"
    (tried,) = failed["error"]["attempts"]
    assert (tried["model"], tried["error"], failed["attempts"]) == (
        *("first", "provider_unavailable", 1),
    )


async def test_all_that_a_line_may_say_is_asked(place: Place, semroute: Any) -> None:
    """Conversation, tools and sampling reach the backend as the line says them."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    conversation = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, picture]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "user", "content": "and this"},
    ]
    place.write(
        {
            "messages": conversation,
            "max_tokens": 9,
            "temperature": 0,
            "top_p": 0.5,
            "stop": ["END"],
            "seed": 3,
            "tools": [tool],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        }
    )
    ended = await semroute("--system", "not for this one", "--max-tokens", 50)
    assert ended.status == 0, place.out.read_text()
    (body,) = place.desk.bodies
    system, asked, called, _, _ = body["messages"]
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    assert system["content"] == "be brief"
    assert asked["content"][1]["image_url"]["url"] == "https://example.org/a.png"
    assert called["tool_calls"] == [call]
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (9, 0, 0.5)
    assert (body["stop"], body["seed"]) == (["END"], 3)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert [offered["function"]["name"] for offered in body["tools"]] == ["look"]
    assert body["response_format"]["json_schema"]["schema"] == schema


async def test_the_command_line_fills_in(place: Place, semroute: Any) -> None:
    """What a line leaves out comes from the options; what it says itself stands."""
    place.write({"query": "one"}, {"query": "two", "max_tokens": 4, "system": "mine"})
    ended = await semroute("--max-tokens", 5, "--system", "ours", "--temperature", 0)
    assert ended.status == 0
    said = {body["messages"][1]["content"]: body for body in place.desk.bodies}
    assert [said[text]["messages"][0]["content"] for text in ("one", "two")] == ["ours", "mine"]
    assert [said[text]["max_tokens"] for text in ("one", "two")] == [5, 4]
    assert {body["temperature"] for body in place.desk.bodies} == {0}


async def test_tool_calls_and_reasoning_are_in_the_row(place: Place, semroute: Any) -> None:
    """Pieces of a call are put together, in the form in which a conversation takes them back."""
    start = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    place.desk.replies["look"] = [
        [
            say(reasoning_content="let me see"),
            say(tool_calls=[start]),
            say(tool_calls=[rest]),
            finish("tool_calls"),
        ]
    ]
    tool = {"type": "function", "function": {"name": "look"}}
    place.write({"query": "look", "tools": [tool]})
    assert (await semroute()).status == 0
    (row,) = place.rows
    assert (row["text"], row["reasoning"], row["finish_reason"]) == (
        *("", "let me see", "tool_calls"),
    )
    function = {"name": "look", "arguments": '{"a": 1}'}
    assert row["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]


WRONG = [
    ("17", 'must be a JSON string, or an object with "query" or "messages"'),
    ('{"query": "q", "messages": []}', 'with "query" or "messages"'),
    ('{"query": "q", "colour": "red"}', "unknown key colour; known: id, local_only, max_cost"),
    ('{"query": "q", "max_tokens": true}', "max_tokens must be a whole number"),
    ('{"query": "q", "max_tokens": 99999999999}', "out of range"),
    ('{"query": "q", "stop": [1]}', "stop must be text or a list of texts"),
    ('{"messages": [{"role": "boss", "content": "q"}]}', "messages[0].role must be one of"),
    ('{"messages": [{"role": "user", "content": 3}]}', "messages[0].content must be text or"),
    ('{"messages": [{"role": "user", "content": [{"type": "x"}]}]}', "content[0] must be"),
    ('{"messages": [{"role": "user", "content": "q", "x": 1}]}', "messages[0]: unknown key x"),
    ('{"query": "q", "tools": [{"name": "look"}]}', "tools[0]: unknown key name"),
    ('{"query": "q", "tools": [{"type": "web"}]}', 'tools[0] must be {"type": "function"'),
    ('{"query": "q", "tool_choice": "maybe"}', "tool_choice must be one of auto, none"),
    ('{"query": "q", "response_format": {"type": "xml"}}', "response_format.type must be"),
    ('{"query": "q", "temperature": 9}', "sampling.temperature"),
    ("[" * 100_000, "recursion"),
]
"""Lines that cannot be asked, and a part of what is said of each."""


async def test_a_wrong_line_stands_alone(place: Place, semroute: Any) -> None:
    """A line that cannot be asked is told in its place, and the others are answered."""
    place.write(*(text for line, _ in WRONG for text in (line, '"right"')))
    assert (await semroute()).status == 1
    assert place.texts == [None, "re right"] * len(WRONG)
    for (_, message), row in zip(WRONG, place.rows[::2], strict=True):
        assert message in row["error"]["message"]
        assert (row["error"]["code"], row["error"]["reason"]) == (
            *("INVALID_ARGUMENT", "INVALID_REQUEST"),
        )


async def test_as_many_at_a_time_as_was_said(place: Place, semroute: Any) -> None:
    """The upstream sees the concurrency that was asked for, and never more."""
    place.write(*quoted(queries(30)))
    place.desk.held = set(queries(30))
    asking = asyncio.create_task(semroute("--concurrency", 7))
    await until(lambda: place.desk.now == 7)
    await asyncio.sleep(0.1)  # whoever came too early would be here by now
    place.desk.free.set()
    assert (await asking).status == 0
    assert place.desk.most == 7
    assert place.texts == answers(queries(30))


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


async def interrupted(place: Place, semroute: Any, *texts: str) -> Ended:
    """Run a batch in which every text that starts with "bad" fails; the journal stays."""
    for text in texts:
        if text.startswith("bad"):
            place.desk.replies[text] = [500]
    place.write(*quoted(list(texts)))
    ended: Ended = await semroute()
    assert ended.status == 1
    place.desk.bodies.clear()
    return ended


async def test_errors_are_kept_until_they_are_to_be_retried(place: Place, semroute: Any) -> None:
    """A failed line is not asked again by itself, and where nothing is to be asked no server is
    needed; with --retry-errors it alone is asked, and once all are whole the journal goes."""
    await interrupted(place, semroute, "one", "bad two", "three")
    place.out.unlink()
    again = await semroute("--server", nobody()[len("http://") : -len("/v1")])
    assert (again.status, place.desk.bodies) == (1, [])
    assert "--retry-errors asks those with an error again" in again.err
    assert place.texts == ["re one", None, "re three"]
    mended = await semroute("--retry-errors", "--json")
    assert (mended.status, dict(place.desk.asked)) == (0, {"bad two": 1})
    assert place.texts == ["re one", "re bad two", "re three"]
    summary = json.loads(mended.out)
    assert (summary["answered"], summary["failed"], summary["kept"]) == (3, 0, 2)
    assert not place.partial.exists()


async def test_a_torn_journal_is_mended(place: Place, semroute: Any) -> None:
    """A last line that was torn, and one that was damaged, count for nothing; the rest stands."""
    await interrupted(place, semroute, "one", "bad two", "three", "four")
    lines = place.partial.read_bytes().splitlines(keepends=True)
    rows = {line: i for i, line in enumerate(lines) if b'"row": {' in line}
    damaged = next(i for line, i in rows.items() if b"re one" in line)
    torn = next(i for line, i in rows.items() if b"re four" in line)
    lines[damaged] = b"\0" * 80 + b"\n"
    last = lines.pop(torn)
    place.partial.write_bytes(b"".join(lines) + last[:-20])
    again = await semroute()
    assert again.status == 1
    assert "1 lines of " in again.err
    assert dict(place.desk.asked) == {"one": 1, "four": 1}
    assert place.texts == ["re one", None, "re three", "re four"]


async def test_a_changed_input_keeps_what_stays(place: Place, semroute: Any) -> None:
    """Lines that were moved keep their answers; those that are new are asked, and it is said that
    there are answers to lines that have gone."""
    await interrupted(place, semroute, "one", "bad two", "three", "four")
    place.write(*quoted(["new", "four", "one", "mended two"]))
    again = await semroute()
    assert again.status == 0
    assert "in.jsonl has changed: 1 answers belong to lines that are no longer in it" in again.err
    assert dict(place.desk.asked) == {"new": 1, "mended two": 1}
    assert [(row["line"], row["text"]) for row in place.rows] == list(
        enumerate(answers(["new", "four", "one", "mended two"]), start=1)
    )


async def test_the_same_line_twice_is_two_answers(place: Place, semroute: Any) -> None:
    """Lines with the same text each get an answer of their own, and keep as many as there are."""
    await interrupted(place, semroute, "same", "bad", "same")
    place.write(*quoted(["same", "same", "same"]))
    assert (await semroute()).status == 0
    assert dict(place.desk.asked) == {"same": 1}
    assert place.texts == ["re same"] * 3


async def test_other_options_are_another_batch(place: Place, semroute: Any) -> None:
    """A journal is not gone on with under options that ask something else of its lines."""
    await interrupted(place, semroute, "one", "bad two")
    ended = await semroute("--max-tokens", 5, "--tenant", "lab")
    assert (ended.status, place.desk.bodies) == (2, [])
    assert "was begun with other options (max_tokens, tenant); give the same again" in ended.err


async def test_what_cannot_be_begun(place: Place, semroute: Any, tmp_path: Path) -> None:
    """A file that is not there or no text, and an OUT that cannot be written or is there already,
    are one clear error; nothing is asked, and nothing is left behind."""
    source = tmp_path / "in.jsonl"
    ended = await semroute()
    assert (ended.status, ended.err) == (2, f"semroute: {source}: No such file or directory\n")
    source.write_bytes(b'"right"\n"\xff\xfe"\n')
    ended = await semroute()
    assert (ended.status, ended.err) == (2, f"semroute: {source}: line 2 is not UTF-8 text\n")
    place.write('"right"')
    for out, message in (
        (tmp_path / "nowhere" / "out", "nowhere/out: No such file"),
        (tmp_path, "Is a directory"),
        (source, f"{source} is there already; remove it to ask anew"),
    ):
        ended = await semroute("--out", out)
        assert message in ended.err
    place.partial.write_text("of something else\n")
    ended = await semroute()
    assert ended.status == 2
    assert "is no journal of this command" in ended.err
    assert place.partial.read_text() == "of something else\n"
    place.partial.unlink()
    assert not place.desk.bodies
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["complete", "hello", "--batch", "in", "--out", "out"],
        ["complete", "--batch", "in"],
        ["complete", "hello", "--out", "out"],
        ["complete", "--batch", "in", "--out", "out", "--concurrency", "0"],
        ["complete", "--batch", "in", "--out", "out", "--wait", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What contradicts itself is refused with status 2 before any file is read."""
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("semroute: ")


async def test_no_server_is_told_at_once(place: Place, semroute: Any) -> None:
    """Where nobody answers to begin with, no line is failed for it, and nothing is left behind."""
    place.write('"one"')
    address = nobody()[len("http://") : -len("/v1")]
    ended = await semroute("--server", address)
    assert ended.status == 1
    assert f"no server answers at {address}; start one: semroute serve" in ended.err
    assert [path.name for path in place.folder.iterdir()] == ["in.jsonl"]


async def test_an_empty_batch_is_whole(place: Place, semroute: Any) -> None:
    """Nothing asked is nothing failed: OUT is there, and empty."""
    place.write("")
    assert (await semroute()).status == 0
    assert place.out.read_text() == ""


async def test_a_rate_limit_is_waited_for(place: Place, semroute: Any) -> None:
    """A line that an upstream refuses for its rate waits its time and is asked again."""
    place.desk.replies["two"] = [429, 429]
    place.write('"one"', '"two"')
    assert (await semroute()).status == 0
    assert place.texts == ["re one", "re two"]
    assert place.desk.asked["two"] == 3
    assert place.rows[1]["attempts"] == 3


async def test_patience_has_an_end(place: Place, semroute: Any) -> None:
    """With no time to wait, a line that is refused for its rate fails and says why."""
    place.desk.replies["two"] = [429]
    place.write('"one"', '"two"')
    assert (await semroute("--wait", 0)).status == 1
    error = place.rows[1]["error"]
    assert (error["reason"], error["attempts"][0]["error"]) == (
        *("BACKENDS_UNAVAILABLE", "provider_rate_limit"),
    )


PRICED = {"first": {"price": {"input": 1, "output": 2}}}
RESERVED = DEFAULT_OUTPUT_TOKENS * 2_000 / 1e9
"""What an answer of unknown length reserves at least, in USD."""


@contextlib.asynccontextmanager
async def with_budget(place: Place, answers_: float) -> AsyncIterator[Place]:
    """The same place, where the month has money for so many answers of unknown length."""
    limited = simple(place.desk, models=PRICED, cost={"monthly_limit": answers_ * RESERVED})
    async with running_server(profile=limited) as server:
        yield Place(place.folder, server, place.desk)


async def test_an_exhausted_budget_ends_the_run(place: Place) -> None:
    """Once the month's money is gone nothing more is asked, no line is failed for it, and the same
    command goes on where there is money again."""
    place.desk.usage = {"prompt_tokens": 10, "completion_tokens": DEFAULT_OUTPUT_TOKENS}
    place.write(*quoted(queries(12)))
    async with with_budget(place, 3.5) as poor:
        poor_run = await run(*SEMROUTE, *poor.command("--concurrency", 4, "--json"))
    summary = json.loads(poor_run.out)
    assert (poor_run.status, summary["answered"], summary["failed"], summary["left"]) == (
        1,
        3,
        0,
        9,
    )
    assert 'the monthly limit of profile "test" is reached' in summary["stopped"]
    assert not place.out.exists()
    async with with_budget(place, 100) as rich:
        rich_run = await run(*SEMROUTE, *rich.command())
    assert rich_run.status == 0, rich_run.err
    assert "cut off" not in rich_run.err
    assert place.texts == answers(queries(12))
    assert set(place.desk.asked.values()) == {1}


async def test_reservations_do_not_exhaust_a_budget(place: Place) -> None:
    """Where the money is enough for the answers but not for as many reservations at a time, fewer
    are asked at a time, and all are answered."""
    place.write(*quoted(queries(12)))
    async with with_budget(place, 2.5) as poor:
        ended = await run(*SEMROUTE, *poor.command("--concurrency", 6))
    assert ended.status == 0, ended.err
    assert place.texts == answers(queries(12))
    assert set(place.desk.asked.values()) == {1}


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
        assert await asyncio.to_thread(main, place.command()) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


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
