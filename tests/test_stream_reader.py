"""The reader of OpenAI's streams by itself: whatever comes, it never raises and never loops."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends.openai_stream import StreamReader
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage
from upstream import say

KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "content",
        "reasoning_content",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "index",
        "id",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "error",
        "code",
        "message",
        "x_groq",
        "object",
        "type",
        "thinking",
        "text",
    ]
)
WORDS = st.sampled_from(["stop", "error", "text", "thinking", "429", "", "\ud83d", "é", "[DONE]"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": VALUES, "reasoning": VALUES, "tool_calls": VALUES}
)
CHOICES = st.fixed_dictionaries({"delta": DELTAS | VALUES}, optional={"finish_reason": VALUES})
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2) | VALUES},
    optional={"usage": VALUES, "error": VALUES, "x_groq": VALUES},
)


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def read(*pieces: bytes) -> tuple[list[Delta], StreamReader]:
    reader = StreamReader({})
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    return deltas + reader.close(), reader


def check(deltas: list[Delta]) -> None:
    """All of it fits into the contract's messages."""
    for delta in deltas:
        assert delta
        (delta.text + delta.reasoning).encode()
        for call in delta.tool_calls:
            assert 0 <= call.index < 2**31
            (call.id + call.name + call.arguments).encode()


@settings(deadline=None)
@given(st.lists(CHUNKS.map(event) | VALUES.map(event) | st.binary(max_size=80), max_size=8))
def test_no_stream_raises(pieces: list[bytes]) -> None:
    """Chunks that are nearly right, and bytes that are nothing, become deltas or a failure."""
    deltas, reader = read(*pieces)
    check(deltas)
    usage = reader.usage
    if usage:
        assert 0 <= usage.prompt_tokens < 2**31
        assert 0 <= usage.completion_tokens < 2**31


def test_what_arrived_together_leaves_together() -> None:
    """A read with many chunks is one delta, reasoning before text before tool calls."""
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    chunks = [
        say(reasoning_content="h"),
        say(reasoning_content="m"),
        *[say("x")] * 300,
        say(tool_calls=[call]),
        say(tool_calls=[more]),
    ]
    deltas, _ = read(b"".join(map(event, chunks)))
    assert deltas == [Delta("x" * 300, "hm", (ToolCallDelta(0, "a", "look", "{}"),))]


def test_what_would_come_out_of_order_begins_anew() -> None:
    """Text never moves before the reasoning or the call that preceded it."""
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}}
    chunks = [say("one"), say(reasoning="hm"), say("two"), say(tool_calls=[call]), say("three")]
    deltas, _ = read(b"".join(map(event, chunks)))
    assert [(d.text, d.reasoning, len(d.tool_calls)) for d in deltas] == [
        ("one", "", 0),
        ("two", "hm", 1),
        ("three", "", 0),
    ]


def test_what_came_before_a_failure_is_not_lost() -> None:
    """Text in the same read as the error after it is returned, and nothing is read after it."""
    deltas, reader = read(event(say("well")) + event({"error": {"code": 429}}) + event(say("no")))
    assert deltas == [Delta("well")]
    assert reader.failure is not None
    assert reader.failure.error_class is ErrorClass.PROVIDER_RATE_LIMIT
    assert reader.finish is None


@pytest.mark.parametrize("together", [True, False])
def test_what_follows_the_finish_is_no_part_of_the_answer(together: bool) -> None:
    """However the network cuts it."""
    chunks = [*map(event, (say("a"), {"choices": [{"finish_reason": "stop"}]}, say("late")))]
    deltas, reader = read(b"".join(chunks)) if together else read(*chunks)
    assert deltas == [Delta("a")]
    assert reader.finish is FinishReason.STOP


def test_an_error_after_the_finish_spoils_nothing() -> None:
    """An answer that ended has ended."""
    chunks = [{"choices": [{"finish_reason": "stop"}]}, {"error": {"code": 500}}]
    _, reader = read(*map(event, chunks))
    assert (reader.finish, reader.failure) == (FinishReason.STOP, None)


def test_tool_calls_without_end_are_bounded() -> None:
    """A stream that begins call after call is malformed at last, and not kept for ever."""
    reader = StreamReader({})
    for index in range(3_000):
        reader.feed(event(say(tool_calls=[{"index": index, "function": {"name": "look"}}])))
    assert reader.failure is not None
    assert reader.failure.error_class is ErrorClass.PROVIDER_PROTOCOL


def test_thoughts_that_only_the_total_counts_are_paid() -> None:
    """What the total says beyond prompt and answer was written as well."""
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 30}
    _, reader = read(event({"choices": [{"finish_reason": "stop"}], "usage": usage}))
    assert reader.usage == Usage(prompt_tokens=10, completion_tokens=20)


def test_what_is_counted_before_the_finish_is_not_of_the_whole() -> None:
    """It says so, until a count has come with the finish or after it."""
    early = event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}})
    end = event({"choices": [{"finish_reason": "stop"}]})
    _, reader = read(early, event(say("word")), end)
    assert reader.usage == Usage(prompt_tokens=10, estimated=True)
    late = event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    _, reader = read(early, event(say("word")), end, late)
    assert reader.usage == Usage(prompt_tokens=10, completion_tokens=5)


@pytest.mark.parametrize("first", ["stop", "length"])
@pytest.mark.parametrize("second", ["stop", "content_filter", "network_error"])
def test_the_first_finish_reason_counts(first: str, second: str) -> None:
    """An answer ends once, and its usage is still heard."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    ends = [{"choices": [{"finish_reason": word}]} for word in (first, second)]
    _, reader = read(*map(event, [say("a"), *ends, {"choices": [], "usage": usage}]))
    assert (reader.finish, reader.failure) == (FinishReason(first), None)
    assert reader.usage == Usage(prompt_tokens=10, completion_tokens=5)
