"""The fault server as a plain HTTP client sees it: each fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from fault_asking import GENEROUS, PATIENCE, QUESTION, ask, see
from semroute_service.faults import (
    FAULTS,
    RANDOM,
    UnknownFaultError,
    fault_server,
    parse,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def _has(event: Any, key: str) -> bool:
    return isinstance(event, dict) and key in event


STATUSES = {
    **{str(code): code for code in (400, 401, 402, 403, 404, 408, 413, 422, 429)},
    **{str(code): code for code in (500, 502, 503, 504, 529)},
    "500-once": 500,
    "context-length": 400,
    "content-filter": 400,
    "429-seconds": 429,
    "429-date": 429,
    "429-ms": 429,
    "429-reset": 429,
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("model", STATUSES)
async def test_refusals_have_their_status_and_an_error_body(model: str, stream: bool) -> None:
    """What is refused is refused with the status of its name, and the error as OpenAI writes it."""
    seen = await see(model, stream=stream)
    assert (seen.ending, seen.status) == ("whole", STATUSES[model])
    error = json.loads(seen.body)["error"]
    assert error["message"].startswith("fault server: ")
    assert error["type"]
    if model in {"context-length", "content-filter"}:
        assert error["code"] in {"context_length_exceeded", "content_filter"}


ENDINGS: Mapping[str, tuple[str, int | None, int | None]] = {
    # model: how it ends, the status, how many tokens of the right answer come
    "reset": ("refused", None, None),
    "hang-up": ("refused", None, None),
    "cut-headers": ("refused", None, None),
    "silence": ("silent", None, None),
    "slow-first:30": ("silent", 200, 0),
    "stall:0": ("silent", 200, 0),
    "stall:3": ("silent", 200, 3),
    "cut:0": ("broken", 200, 0),
    "cut": ("broken", 200, 5),
    "cut:15": ("broken", 200, 15),
    "cut-reset:3": ("broken", 200, 3),
    "error-in-200": ("whole", 200, 0),
    "error-mid-stream:3": ("whole", 200, 3),
    "truncated-json": ("whole", 200, 8),
    "no-end": ("whole", 200, 16),
    "only-done": ("whole", 200, 16),
    "all-malformed": ("whole", 200, 0),
    "endless:3000": ("broken", 200, 3000),
}
WHOLE: Mapping[str, tuple[int, str]] = {
    "ok": (16, "stop"),
    "ok:3": (3, "stop"),
    "ok:0": (0, "stop"),
    "slow:0.01": (16, "stop"),
    "slow-first:0.05": (16, "stop"),
    "keep-alive:0.2": (16, "stop"),
    "malformed": (16, "stop"),
    "no-done": (16, "stop"),
    "length": (5, "length"),
    "filtered:2": (2, "content_filter"),
}


@pytest.mark.parametrize("model", ENDINGS)
async def test_answers_that_are_not_whole(model: str) -> None:
    """So many right tokens come, then what the name says, and never a finish reason."""
    ending, status, tokens = ENDINGS[model]
    seen = await see(model)
    assert (seen.ending, seen.status) == (ending, status)
    if tokens is not None:
        assert seen.text == whole(QUESTION, tokens)
    assert seen.finish is None
    assert seen.is_done is (model == "only-done")


@pytest.mark.parametrize("model", WHOLE)
async def test_answers_that_are_whole(model: str) -> None:
    """All tokens, a finish reason, the usage and [DONE], whatever is odd about it."""
    tokens, reason = WHOLE[model]
    seen = await see(model)
    assert (seen.ending, seen.text) == ("whole", whole(QUESTION, tokens))
    assert seen.finish == reason
    assert seen.is_done is (model != "no-done")
    (usage,) = [event["usage"] for event in seen.events if _has(event, "usage")]
    assert usage["completion_tokens"] == tokens
    assert sum(isinstance(e, bytes) for e in seen.events) == seen.is_done + (model == "malformed")


async def test_usage_comes_only_where_it_is_asked_for() -> None:
    """As with OpenAI, a stream has no usage unless stream_options ask for it."""
    seen = await see("ok", stream_options=None)
    assert not any(_has(event, "usage") for event in seen.events)


@pytest.mark.parametrize("model", [*ENDINGS, *WHOLE])
async def test_the_same_without_streaming(model: str) -> None:
    """One JSON object is whole where the stream would be, and cannot be read where it would not."""
    seen = await see(model, stream=False)
    if model in WHOLE and model != "malformed":
        (choice,) = json.loads(seen.body)["choices"]
        assert choice["message"] == {
            "role": "assistant",
            "content": whole(QUESTION, WHOLE[model][0]),
        }
        assert choice["finish_reason"] == WHOLE[model][1]
    elif model == "error-in-200":
        assert "error" in json.loads(seen.body)
    else:
        assert seen.ending == "silent" or not seen.body or not _is_json(seen.body)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


async def test_answers_follow_from_the_question() -> None:
    """Two questions have two answers, so that mixed up streams are seen."""
    other = [{"role": "user", "content": "and now?"}]
    assert (await see("ok")).text != (await see("ok", messages=other)).text == whole("and now?")


@pytest.mark.parametrize(
    ("model", "header", "value"),
    [
        ("429-seconds:7", "retry-after", "7"),
        ("429-ms:250", "retry-after-ms", "250"),
        ("429-reset:6m0s", "x-ratelimit-reset-requests", "6m0s"),
    ],
)
async def test_when_to_come_back(model: str, header: str, value: str) -> None:
    """Each form of Retry-After is written as its provider writes it."""
    assert (await see(model)).headers[header] == value


async def test_when_to_come_back_as_a_date() -> None:
    """The date is so many seconds away, rounded up to a whole one."""
    date = parsedate_to_datetime((await see("429-date:5")).headers["retry-after"])
    assert 3 < (date - datetime.now(UTC)).total_seconds() <= 6


async def test_when_to_come_back_in_the_body() -> None:
    """Google's form is a list that holds the delay among its details."""
    (entry,) = json.loads((await see("429-retry-delay:34s")).body)
    assert entry["error"]["details"][0]["retryDelay"] == "34s"


@pytest.mark.parametrize(
    "model", ["429-ms:200", "429-seconds:0.2", "429-reset:200ms", "429-retry-delay:0.2s"]
)
async def test_who_waits_is_answered_once(model: str) -> None:
    """Too early is refused again; after the time one request is answered, and the next is not."""
    async with fault_server() as server:
        early = [(await ask(server, model)).status for _ in range(2)]
        await asyncio.sleep(0.25)
        late = [(await ask(server, model)).status for _ in range(2)]
    assert (early, late) == ([429, 429], [200, 429])


async def test_500_once_and_flapping_remember() -> None:
    """One stumbles so many times and stands then; the other goes up and down."""
    async with fault_server() as server:
        once = [(await ask(server, "500-once:2")).status for _ in range(4)]
        flapping = [(await ask(server, "flapping:2")).status for _ in range(6)]
        assert (await ask(server, "500-once")).status == 500  # another name, another memory
    assert once == [500, 500, 200, 200]
    assert flapping == [200, 200, 503, 503, 200, 200]


async def test_other_media_types() -> None:
    """A page where a stream should be, and one object where a stream was asked for."""
    page, whole_one = await see("wrong-type"), await see("not-streamed")
    assert page.headers["content-type"].startswith("text/html")
    assert whole_one.headers["content-type"].startswith("application/json")
    assert json.loads(whole_one.body)["choices"][0]["message"]["content"] == whole(QUESTION)


async def test_a_megabyte_line() -> None:
    """One event is longer than a mebibyte, and it is well-formed."""
    seen = await see("megabyte-line:1.5")
    assert max(len(line) for line in seen.body.split(b"\n")) > 1.5 * 1024 * 1024
    assert (seen.ending, seen.finish) == ("whole", "stop")


async def test_wide_tokens() -> None:
    """Each is a kibibyte, so that an answer is large and takes few of them."""
    seen = await see("wide:30")
    assert len(seen.text) == 30 * 1024
    assert (seen.ending, seen.finish) == ("whole", "stop")
    assert seen.text.replace(".", "") == whole(QUESTION, 30)


async def test_slow_headers_never_end() -> None:
    """Bytes go on coming, so only a clock for the headers as a whole helps."""
    async with fault_server() as server:
        port = int(server.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"model": "slow-headers:0.01", "messages": [{"content": "hi"}]})
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        async with asyncio.timeout(GENEROUS):
            start = await reader.readexactly(len(b"HTTP/1.1 200 OK\r\nx-slow: ") + 20)
        assert start.endswith(b"x-slow: " + b"o" * 20)
        writer.close()
        async with asyncio.timeout(GENEROUS):
            await server.received[0].over.wait()
    assert server.received[0].left


async def test_keep_alive_sends_comments_for_ever() -> None:
    """Without a parameter bytes come and tokens never do."""
    async with fault_server() as server:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ask(server, "keep-alive"), 3 * PATIENCE)
        async with asyncio.timeout(GENEROUS):
            await server.received[0].over.wait()
    assert server.received[0].pieces > 3
    assert server.received[0].left


async def test_random_is_the_same_for_the_same_seed() -> None:
    """A share of requests meets a fault that the log names; a seed repeats the choices."""

    async def faults(seed: int) -> list[str]:
        async with fault_server(seed=seed) as server:
            for _ in range(40):
                await ask(server, "random:0.5", patience=0.02)
            return [received.fault for received in server.received]

    async with asyncio.timeout(3 * GENEROUS):
        first, again, other = await asyncio.gather(faults(1), faults(1), faults(2))
    assert first == again != other
    met = [fault for fault in first if fault != "random:0.5"]
    assert 8 < len(met) < 32
    assert set(met) <= set(RANDOM)


async def test_random_at_its_bounds() -> None:
    """Nobody meets a fault at 0, and everybody at 1."""
    async with fault_server(seed=1) as server:
        for model in ("random:0", "random:1"):
            for _ in range(5):
                await ask(server, model, patience=0.02)
    met = [received.fault in RANDOM for received in server.received]
    assert met == [False] * 5 + [True] * 5


def test_every_choice_of_random_is_a_fault() -> None:
    """What chance picks can be played."""
    assert all(parse(model) for model in RANDOM)


def test_this_file_sees_every_fault() -> None:
    """A fault that is added without a test here is noticed."""
    models = {*STATUSES, *ENDINGS, *WHOLE}
    seen = {model.partition(":")[0] for model in models}
    alone = {"random", "flapping", "wrong-type", "not-streamed", "megabyte-line", "slow-headers"}
    alone |= {"wide", "429-retry-delay"}
    assert seen | alone == set(FAULTS)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("gpt-4o", "GET /v1/models lists them"),
        ("stal", "the nearest is stall"),
        ("", "GET /v1/models"),
        ("503:1", "503 takes no parameter"),
        ("cut:", "write cut:N, such as cut:5"),
        ("cut:-1", "write cut:N"),
        ("cut:nan", "write cut:N"),
        ("cut:1e9", "write cut:N"),
        ("cut: 1", "write cut:N"),
        ("cut:١", "write cut:N"),
        ("endless:1000001", "1,000,000 at most"),
        ("silence:3", "takes no parameter"),
        ("random:2", "1 at most"),
        ("429-reset:soon", "such as 429-reset:6m0s"),
        ("429-reset:", "such as 429-reset:6m0s"),
        ("slow:601", "600 at most"),
    ],
)
async def test_what_is_no_fault_is_no_model(model: str, hint: str) -> None:
    """A wrong name or parameter is a 404 that says what would be right."""
    seen = await see(model)
    error = json.loads(seen.body)["error"]
    assert (seen.status, error["code"]) == (404, "model_not_found")
    assert hint in error["message"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("1h2m3.5s", 3723.5), ("300ms", 0.3), ("34s", 34), ("2m", 120)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are read as OpenAI and Google write them."""
    assert parse(f"429-reset:{text}")[1] == pytest.approx(seconds)


def test_a_name_without_its_parameter_has_the_default() -> None:
    """``cut`` is ``cut:5``, and the catalogue's example says so."""
    for fault in FAULTS.values():
        assert parse(fault.name) == parse(fault.example)
    with pytest.raises(UnknownFaultError):
        parse("cut:x")
