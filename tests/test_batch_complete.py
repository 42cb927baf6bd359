"""``semroute complete --batch``: many answers, at any number of sittings, none paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from desk import SEMROUTE, Desk, Place, answers, placed, queries, quoted, simple, until
from processes import Ended, run
from semroute_service.cli import main
from semroute_service.governance import DEFAULT_OUTPUT_TOKENS
from semroute_service.testing import running_server
from upstream import (
    USAGE,
    Status,
    Upstream,
    answer,
    failure,
    finish,
    nobody,
    profile,
    say,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as place:
        yield place


@pytest.fixture
def batch(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[Ended]]:
    """Runs the batch while the server goes on serving."""

    async def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status = await asyncio.to_thread(main, place.command(*arguments))
        return Ended(status, *capsys.readouterr())

    return run


async def test_a_batch_is_answered_in_order(place: Place, batch: Any) -> None:
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
    ended = await batch("--concurrency", 3)
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


async def test_all_that_a_line_may_say_is_asked(place: Place, batch: Any) -> None:
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
    ended = await batch("--system", "not for this one", "--max-tokens", 50)
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


async def test_the_command_line_fills_in(place: Place, batch: Any) -> None:
    """What a line leaves out comes from the options; what it says itself stands."""
    place.write({"query": "one"}, {"query": "two", "max_tokens": 4, "system": "mine"})
    ended = await batch("--max-tokens", 5, "--system", "ours", "--temperature", 0)
    assert ended.status == 0
    said = {body["messages"][1]["content"]: body for body in place.desk.bodies}
    assert [said[text]["messages"][0]["content"] for text in ("one", "two")] == ["ours", "mine"]
    assert [said[text]["max_tokens"] for text in ("one", "two")] == [5, 4]
    assert {body["temperature"] for body in place.desk.bodies} == {0}


async def test_tool_calls_and_reasoning_are_in_the_row(place: Place, batch: Any) -> None:
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
    assert (await batch()).status == 0
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


async def test_a_wrong_line_stands_alone(place: Place, batch: Any) -> None:
    """A line that cannot be asked is told in its place, and the others are answered."""
    place.write(*(text for line, _ in WRONG for text in (line, '"right"')))
    assert (await batch()).status == 1
    assert place.texts == [None, "re right"] * len(WRONG)
    for (_, message), row in zip(WRONG, place.rows[::2], strict=True):
        assert message in row["error"]["message"]
        assert (row["error"]["code"], row["error"]["reason"]) == (
            *("INVALID_ARGUMENT", "INVALID_REQUEST"),
        )


async def test_as_many_at_a_time_as_was_said(place: Place, batch: Any) -> None:
    """The upstream sees the concurrency that was asked for, and never more."""
    place.write(*quoted(queries(30)))
    place.desk.held = set(queries(30))
    asking = asyncio.create_task(batch("--concurrency", 7))
    await until(lambda: place.desk.now == 7)
    await asyncio.sleep(0.1)  # whoever came too early would be here by now
    place.desk.free.set()
    assert (await asking).status == 0
    assert place.desk.most == 7
    assert place.texts == answers(queries(30))


async def interrupted(place: Place, batch: Any, *texts: str) -> Ended:
    """Run a batch in which every text that starts with "bad" fails; the journal stays."""
    for text in texts:
        if text.startswith("bad"):
            place.desk.replies[text] = [500]
    place.write(*quoted(list(texts)))
    ended: Ended = await batch()
    assert ended.status == 1
    place.desk.bodies.clear()
    return ended


async def test_errors_are_kept_until_they_are_to_be_retried(place: Place, batch: Any) -> None:
    """A failed line is not asked again by itself, and where nothing is to be asked no server is
    needed; with --retry-errors it alone is asked, and once all are whole the journal goes."""
    await interrupted(place, batch, "one", "bad two", "three")
    place.out.unlink()
    again = await batch("--server", nobody()[len("http://") : -len("/v1")])
    assert (again.status, place.desk.bodies) == (1, [])
    assert "--retry-errors asks those with an error again" in again.err
    assert place.texts == ["re one", None, "re three"]
    mended = await batch("--retry-errors", "--json")
    assert (mended.status, dict(place.desk.asked)) == (0, {"bad two": 1})
    assert place.texts == ["re one", "re bad two", "re three"]
    summary = json.loads(mended.out)
    assert (summary["answered"], summary["failed"], summary["kept"]) == (3, 0, 2)
    assert not place.partial.exists()


async def test_a_torn_journal_is_mended(place: Place, batch: Any) -> None:
    """A last line that was torn, and one that was damaged, count for nothing; the rest stands."""
    await interrupted(place, batch, "one", "bad two", "three", "four")
    lines = place.partial.read_bytes().splitlines(keepends=True)
    rows = {line: i for i, line in enumerate(lines) if b'"row": {' in line}
    damaged = next(i for line, i in rows.items() if b"re one" in line)
    torn = next(i for line, i in rows.items() if b"re four" in line)
    lines[damaged] = b"\0" * 80 + b"\n"
    last = lines.pop(torn)
    place.partial.write_bytes(b"".join(lines) + last[:-20])
    again = await batch()
    assert again.status == 1
    assert "1 lines of " in again.err
    assert dict(place.desk.asked) == {"one": 1, "four": 1}
    assert place.texts == ["re one", None, "re three", "re four"]


async def test_a_changed_input_keeps_what_stays(place: Place, batch: Any) -> None:
    """Lines that were moved keep their answers; those that are new are asked, and it is said that
    there are answers to lines that have gone."""
    await interrupted(place, batch, "one", "bad two", "three", "four")
    place.write(*quoted(["new", "four", "one", "mended two"]))
    again = await batch()
    assert again.status == 0
    assert "in.jsonl has changed: 1 answers belong to lines that are no longer in it" in again.err
    assert dict(place.desk.asked) == {"new": 1, "mended two": 1}
    assert [(row["line"], row["text"]) for row in place.rows] == list(
        enumerate(answers(["new", "four", "one", "mended two"]), start=1)
    )


async def test_the_same_line_twice_is_two_answers(place: Place, batch: Any) -> None:
    """Lines with the same text each get an answer of their own, and keep as many as there are."""
    await interrupted(place, batch, "same", "bad", "same")
    place.write(*quoted(["same", "same", "same"]))
    assert (await batch()).status == 0
    assert dict(place.desk.asked) == {"same": 1}
    assert place.texts == ["re same"] * 3


async def test_other_options_are_another_batch(place: Place, batch: Any) -> None:
    """A journal is not gone on with under options that ask something else of its lines."""
    await interrupted(place, batch, "one", "bad two")
    ended = await batch("--max-tokens", 5, "--tenant", "lab")
    assert (ended.status, place.desk.bodies) == (2, [])
    assert "was begun with other options (max_tokens, tenant); give the same again" in ended.err


async def test_what_cannot_be_begun(place: Place, batch: Any, tmp_path: Path) -> None:
    """A file that is not there or no text, and an OUT that cannot be written or is there already,
    are one clear error; nothing is asked, and nothing is left behind."""
    source = tmp_path / "in.jsonl"
    ended = await batch()
    assert (ended.status, ended.err) == (2, f"semroute: {source}: No such file or directory\n")
    source.write_bytes(b'"right"\n"\xff\xfe"\n')
    ended = await batch()
    assert (ended.status, ended.err) == (2, f"semroute: {source}: line 2 is not UTF-8 text\n")
    place.write('"right"')
    for out, message in (
        (tmp_path / "nowhere" / "out", "nowhere/out: No such file"),
        (tmp_path, "Is a directory"),
        (source, f"{source} is there already; remove it to ask anew"),
    ):
        ended = await batch("--out", out)
        assert message in ended.err
    place.partial.write_text("of something else\n")
    ended = await batch()
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


async def test_no_server_is_told_at_once(place: Place, batch: Any) -> None:
    """Where nobody answers to begin with, no line is failed for it, and nothing is left behind."""
    place.write('"one"')
    address = nobody()[len("http://") : -len("/v1")]
    ended = await batch("--server", address)
    assert ended.status == 2
    assert f"no server answers at {address}; start one: semroute serve" in ended.err
    assert [path.name for path in place.folder.iterdir()] == ["in.jsonl"]


async def test_an_empty_batch_is_whole(place: Place, batch: Any) -> None:
    """Nothing asked is nothing failed: OUT is there, and empty."""
    place.write("")
    assert (await batch()).status == 0
    assert place.out.read_text() == ""


async def test_a_rate_limit_is_waited_for(place: Place, batch: Any) -> None:
    """A line that an upstream refuses for its rate waits its time and is asked again."""
    place.desk.replies["two"] = [429, 429]
    place.write('"one"', '"two"')
    assert (await batch()).status == 0
    assert place.texts == ["re one", "re two"]
    assert place.desk.asked["two"] == 3
    assert place.rows[1]["attempts"] == 3


async def test_patience_has_an_end(place: Place, batch: Any) -> None:
    """With no time to wait, a line that is refused for its rate fails and says why."""
    place.desk.replies["two"] = [429]
    place.write('"one"', '"two"')
    assert (await batch("--wait", 0)).status == 1
    error = place.rows[1]["error"]
    assert (error["reason"], error["attempts"][0]["error"]) == (
        *("BACKENDS_UNAVAILABLE", "provider_rate_limit"),
    )


@contextlib.asynccontextmanager
async def in_front_of(server: Upstream, folder: Path) -> AsyncIterator[Place]:
    """A place whose answers come from this upstream."""
    served = profile(server, behavior={"max_retries": 2})
    async with running_server(profile=served) as running:
        yield Place(folder, running, Desk())


async def test_an_outage_of_a_backend_is_waited_for(tmp_path: Path) -> None:
    """While the circuit of the only model is open the run pauses, those lines as well that opened
    it; then all are answered. Three refusals open it, and nobody is asked before its time."""
    async with upstream(*[Status(503)] * 3, answer("well")) as server:
        async with in_front_of(server, tmp_path) as place:
            place.write(*quoted(queries(20)))
            ended = await run(*SEMROUTE, *place.command("--concurrency", 3, "--wait", 30))
        assert (ended.status, place.texts) == (0, ["well"] * 20), ended.err
        assert len(server.requests) == 23
    assert ended.err.count("waiting up to 30 s") == 1
    assert "no backend could answer (first: " in ended.err


async def test_a_rate_limit_that_concerns_all_is_waited_for(tmp_path: Path) -> None:
    """A provider that asks for more time than a line has is left alone for so long, by those lines
    as well that were not asked, and then answers all of them."""
    limited = Status(429, failure("slow down"), {"retry-after": "2"})
    async with upstream(limited, answer("well")) as server:
        async with in_front_of(server, tmp_path) as place:
            place.write(*quoted(queries(20)))
            command = place.command("--concurrency", 4, "--timeout", 1, "--wait", 30)
            ended = await run(*SEMROUTE, *command)
        assert (ended.status, place.texts) == (0, ["well"] * 20), ended.err
        first, *later = [request.at for request in server.requests]
        assert sum(at - first < 1.9 for at in later) <= 3  # those that were on their way
    assert ended.err.count("waiting up to 30 s") == 1


async def test_an_outage_that_lasts_fails_the_lines(tmp_path: Path) -> None:
    """Once nothing has been answered for as long as was said, lines fail with what keeps them, each
    without a wait of its own, and no backend is asked for them."""
    async with upstream(Status(503)) as server:
        async with in_front_of(server, tmp_path) as place:
            place.write(*quoted(queries(20)))
            ended = await run(*SEMROUTE, *place.command("--concurrency", 3, "--wait", 0.5))
        assert ended.status == 1
        assert "0 answered, 20 failed" in ended.err
        assert len(server.requests) < 6  # until the circuit was open
    last = place.rows[-1]["error"]
    assert (last["reason"], last["attempts"]) == ("BACKENDS_UNAVAILABLE", [])
    assert "first: not asked, failed 3 times in a row" in last["message"]


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
