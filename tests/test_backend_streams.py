"""How an upstream's stream is read: pieces, endings, usage, framing, rubbish; all over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import yaml

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
    from pathlib import Path

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
        ("eos_token", "STOP"),
        ("function_call", "TOOL_CALLS"),
        ("tool-calls", "TOOL_CALLS"),
        ("max_output_tokens", "LENGTH"),
        ("content_filter", "CONTENT_FILTER"),
        ("content_filter: RECITATION", "CONTENT_FILTER"),
        ("sensitive", "CONTENT_FILTER"),
        ("IMAGE_SAFETY", "CONTENT_FILTER"),
    ],
)
async def test_finish_reasons(word: str, reason: str) -> None:
    """Every dialect's finish reason is one of the contract's."""
    told = await tell(stream(say("well"), finish(word), DONE))
    assert pb.FinishReason.Name(told.finish.reason) == f"FINISH_REASON_{reason}"


BREAKS = [
    *("abort", "error", "insufficient_system_resource", "timeout", "network_error"),
    *("model_error", "overloaded", "failed", "cancelled", "unknown", "other", "something_new"),
    *("stop: network_error", "malformed_function_call", "time_limit"),
]


@pytest.mark.parametrize("word", BREAKS)
async def test_a_finish_reason_that_proves_no_end_is_none(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that the upstream gave up on, or may have, never looks whole; the log names the
    word, and the caller does not hear it."""
    caplog.set_level(logging.INFO)
    told = await tell(stream(say("well"), finish(word), DONE))
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.answer.finish is None
    assert repr(word) in caplog.text
    assert "finish_reasons" in caplog.text
    assert "finish_reasons" not in told.everything
    assert word != "something_new" or word not in told.everything


async def test_of_a_finish_reason_the_log_shows_little(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a long word nor an unprintable one spoils the log."""
    caplog.set_level(logging.INFO)
    await tell(stream(say("well"), finish("\x1b[2J\n" + "x" * 5000), DONE))
    assert "'[2J" + "x" * 37 + "'" in caplog.text
    assert "x" * 38 not in caplog.text


async def test_a_site_may_name_its_providers_own_finish_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the catalogue says that a word means is what it means, whatever its case."""
    own = {
        "name": "Own",
        "protocol": "openai_chat",
        "locality": "local",
        "key_required": False,
        "finish_reasons": {"worn_out": "length"},
    }
    path = tmp_path / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": {"own": own}}))
    monkeypatch.setenv("SEMROUTE_PROVIDERS", str(path))
    parts: dict[str, Any] = {"backends": {"first": {"provider": "own"}}}
    async with (
        upstream(stream(say("well"), finish("Worn_Out"), DONE)) as server,
        routed(profile(server, **parts)) as client,
    ):
        told = await ask(client)
    assert told.finish.reason == pb.FINISH_REASON_LENGTH


PRICED: dict[str, Any] = {"models": {"first": {"price": {"input": 1, "output": 10}}}}


@pytest.mark.parametrize("counted", [0, 1, 7])
@pytest.mark.parametrize("prompt", [0, 10])
async def test_a_count_that_came_too_early_is_not_of_the_answer(counted: int, prompt: int) -> None:
    """The prompt's figure stands where there is one; the rest is estimated, says so and is paid."""
    early = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": counted}}
    behaviour = stream(early, *[say("word ")] * 300, finish(), DONE)
    async with upstream(behaviour) as server, routed(profile(server, **PRICED)) as client:
        told = await ask(client)
    usage = told.finish.usage
    assert usage.estimated
    assert usage.completion_tokens == 500
    assert usage.prompt_tokens == prompt if prompt else usage.prompt_tokens > 0
    assert told.finish.cost_nano_usd == usage.prompt_tokens * 1_000 + 500 * 10_000


async def test_a_count_that_came_too_early_and_is_larger_counts() -> None:
    """An estimate never takes back what the upstream has counted already."""
    early = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 400}}
    told = await tell(stream(say("word"), early, say("word"), finish(), DONE))
    assert told.finish.usage == pb.Usage(prompt_tokens=10, completion_tokens=400, estimated=True)


async def test_words_that_are_counted_as_none_are_estimated() -> None:
    """A last count of 0 for an answer that has words cannot be true."""
    usage = {"prompt_tokens": 10, "completion_tokens": 0}
    told = await tell(stream(*[say("word ")] * 300, finish(usage=usage), DONE))
    assert told.finish.usage == pb.Usage(prompt_tokens=10, completion_tokens=500, estimated=True)


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
