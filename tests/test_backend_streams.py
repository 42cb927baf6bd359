"""How an upstream's stream is read: pieces, endings, usage, framing, rubbish; all over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from upstream import (
    DONE,
    GENEROUS,
    USAGE,
    Behaviour,
    Cut,
    Step,
    Told,
    Wait,
    ask,
    failure,
    finish,
    outcome,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTED: dict[str, Any] = {"choices": [], "usage": USAGE}


async def tell(*behaviours: Behaviour, **options: Any) -> Told:
    """What a caller is told where the only upstream behaves like this."""
    async with upstream(*behaviours) as server, routed(profile(server)) as client:
        return await ask(client, **options)


async def test_text_arrives_piece_by_piece_with_its_usage() -> None:
    """Deltas come while the upstream still speaks, and finish carries the usage it reported."""
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    spoken: list[Step] = [say("one "), Wait(0.2), say("two "), Wait(0.2), say("thrée")]
    told = await tell(stream(*spoken, finish(), {"choices": [], "usage": usage}, DONE))
    assert [delta.text for delta in told.deltas] == ["one ", "two ", "thrée"]
    assert (told.finish.reason, told.finish.model) == (pb.FINISH_REASON_STOP, "first")
    assert told.finish.usage == pb.Usage(
        prompt_tokens=11, completion_tokens=7, cached_tokens=4, reasoning_tokens=2
    )
    assert [outcome(attempt) for attempt in told.finish.attempts] == [("first", "OK")]


async def test_parallel_tool_calls_with_streamed_arguments() -> None:
    """Pieces of several calls keep their index, and the arguments can be put together."""

    def piece(index: int, arguments: str, **rest: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **rest.pop("f", {})}, **rest}

    told = await tell(
        stream(
            say(tool_calls=[piece(0, "", id="a", f={"name": "sum"})]),
            say(tool_calls=[piece(0, '{"x"')]),
            say(tool_calls=[piece(0, ": 1}"), piece(1, "{}", id="b", f={"name": "now"})]),
            finish("tool_calls"),
            DONE,
        )
    )
    calls = [call for delta in told.deltas for call in delta.tool_calls]
    assert told.finish.reason == pb.FINISH_REASON_TOOL_CALLS
    assert [(c.index, c.id, c.name) for c in calls if c.id] == [(0, "a", "sum"), (1, "b", "now")]
    arguments = ["".join(c.arguments for c in calls if c.index == index) for index in (0, 1)]
    assert arguments == ['{"x": 1}', "{}"]


async def test_tool_calls_without_index_are_told_apart() -> None:
    """Calls that come together without an index are as many calls, not one."""
    calls = [{"id": name, "function": {"name": name}} for name in ("sum", "now")]
    told = await tell(stream(say(tool_calls=calls), finish("tool_calls")))
    assert [(c.index, c.id) for c in told.deltas[0].tool_calls] == [(0, "sum"), (1, "now")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_kept_apart_from_the_answer(field: str) -> None:
    """Reasoning arrives as such, before the text, under either of its names."""
    thought = [say("", **{field: "hm, "}), say(**{field: "yes"})]
    told = await tell(stream(*thought, say("42"), finish(), DONE))
    assert "".join(delta.reasoning for delta in told.deltas) == "hm, yes"
    assert told.text == "42"


async def test_a_refusal_in_words_is_text() -> None:
    """A model that refuses in the field of its own still says so to the caller."""
    told = await tell(stream(say(refusal="I can"), say(refusal="not."), finish(), DONE))
    assert told.text == "I cannot."


ENDINGS: Mapping[str, tuple[Step, ...]] = {
    "usage after the finish": (finish(), COUNTED, DONE),
    "usage with the finish": (finish(usage=USAGE), DONE),
    "no DONE": (finish(usage=USAGE),),
    "no DONE and no end": (finish(), COUNTED, Wait()),
    "silence for the usage": (finish(), Wait()),
    "a break after the finish": (finish(), Cut()),
    "an error after the finish": (finish(), failure("late")),
    "rubbish after the finish": (finish(), b"data: {{{\n\n" * 50, DONE),
    "usage in every chunk": (
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        finish(),
        Wait(0.2),
        COUNTED,
        DONE,
    ),
    "no last blank line": (b"data: " + json.dumps(finish(usage=USAGE)).encode(),),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_finish_reason_ends_the_answer_whatever_follows(ending: str) -> None:
    """Once the backend said how its answer ended it is whole; usage is taken if it comes."""
    async with asyncio.timeout(GENEROUS):
        told = await tell(stream(say("well"), *ENDINGS[ending]))
    assert told.text == "well"
    assert told.finish.reason == pb.FINISH_REASON_STOP
    counted = ending not in {"silence for the usage", "a break after the finish"}
    counted = counted and not ending.startswith(("an error", "rubbish"))
    assert told.finish.usage.estimated is not counted
    if counted:
        assert told.finish.usage == pb.Usage(prompt_tokens=11, completion_tokens=7)


SENSELESS: list[Any] = ["3", 1e300, float("inf"), float("nan"), 2**70, [], -1]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [1],
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        *({"prompt_tokens": value, "completion_tokens": 3} for value in SENSELESS),
    ],
    ids=repr,
)
async def test_usage_that_cannot_be_true_is_estimated(usage: Any) -> None:
    """Missing, zero and senseless figures become an estimate that says so, and spoil nothing."""
    told = await tell(stream(say("well, well"), finish(usage=usage), DONE))
    assert told.text == "well, well"
    assert told.finish.usage.estimated
    assert told.finish.usage.prompt_tokens > 0
    assert told.finish.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("length", "LENGTH"),
        ("eos", "STOP"),
        ("STOP", "STOP"),
        ("function_call", "TOOL_CALLS"),
        ("content_filter", "CONTENT_FILTER"),
        ("something_new", "STOP"),
    ],
)
async def test_finish_reasons(word: str, reason: str) -> None:
    """Every dialect's finish reason is one of the contract's."""
    told = await tell(stream(say("well"), finish(word), DONE))
    assert pb.FinishReason.Name(told.finish.reason) == f"FINISH_REASON_{reason}"


@pytest.mark.parametrize("word", ["abort", "error", "insufficient_system_resource"])
async def test_a_finish_reason_that_means_a_break_is_none(word: str) -> None:
    """An answer that the upstream gave up on never looks whole."""
    told = await tell(stream(say("well"), Wait(0.2), finish(word), DONE))
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.answer.finish is None


def framed(raw: bytes) -> Mapping[str, tuple[Step, ...]]:
    return {
        "CRLF": (raw.replace(b"\n", b"\r\n"),),
        "no space": (raw.replace(b"data: ", b"data:"),),
        "keep-alives": (b": alive\n\n" + raw.replace(b"\n\n", b"\n\n: alive\n\n"),),
        "event names": (raw.replace(b"data: ", b"event: message\nid: 1\ndata: "),),
        "byte by byte": tuple(step for byte in raw for step in (bytes([byte]), Wait(0))),
        "all at once": (raw,),
    }


RAW = b"".join(
    b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
    for chunk in (say("één "), say("twee"), finish(), COUNTED)
)


@pytest.mark.parametrize("framing", framed(RAW))
async def test_framings(framing: str) -> None:
    """However the events are framed and cut, the answer is the same."""
    told = await tell(stream(*framed(RAW)[framing], DONE))
    assert told.text == "één twee"
    assert told.finish.usage.completion_tokens == 7


MALFORMED = [
    b"data: {nonsense\n\n",
    b"data: [1]\n\n",
    b"data: null\n\n",
    b"data: \xff\xfe\n\n",
    b"data: " + b"[" * 200_000 + b"\n\n",
    b'data: {"choices": 3}\n\n',
    b'data: {"choices": [null]}\n\n',
    b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": 1e99}]}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": -1}]}}]}\n\n',
]


async def test_malformed_chunks_are_skipped() -> None:
    """What cannot be understood is passed over, and the answer around it is whole."""
    told = await tell(stream(say("we"), *MALFORMED, say("ll"), finish(usage=USAGE), DONE))
    assert told.text == "well"


async def test_a_stream_of_malformed_chunks_is_given_up() -> None:
    """An upstream that sends nothing else has failed, although it never stops."""
    told = await tell(stream(*[b"data: {nonsense\n\n"] * 30, Wait()))
    assert told.failures == [("first", "PROVIDER_PROTOCOL")]


async def test_half_a_character_does_no_harm() -> None:
    """A lone surrogate, which JSON can write and UTF-8 cannot, does not end the answer."""
    half = b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'
    told = await tell(stream(half, finish()))
    assert told.text.startswith("a")
    assert told.finish


async def test_an_event_without_end_is_given_up() -> None:
    """An event that only grows ends the attempt, not the memory."""
    told = await tell(stream(b"data: ", *[b"x" * 65536] * 20, Wait()))
    assert told.failures == [("first", "PROVIDER_PROTOCOL")]
