"""How a stream of the Messages API is read: pieces, endings, usage, rubbish, and any cut of it."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import (
    begin,
    broken,
    called,
    claude,
    closed,
    ended,
    event,
    events_of,
    opened,
    piece,
    said,
    thought,
)
from semroute_service.backends import BackendError, End
from semroute_service.backends.anthropic_stream import StreamReader
from semroute_service.decision import Delta, ErrorClass, FinishReason, ToolCallDelta, Usage
from upstream import Step, Wait, stream, upstream

WORDED = {"out_of_credit": "length"}
"""A provider's own word for an end."""
Read: TypeAlias = tuple[list[Delta], FinishReason | None, Usage | None]


def read(*chunks: bytes) -> Read:
    """What a stream says that comes in these chunks."""
    reader = StreamReader(WORDED)
    deltas = [delta for chunk in chunks for delta in reader.feed(chunk)] + reader.close()
    if reader.failure:
        raise reader.failure
    return deltas, reader.finish, reader.usage


async def received(*steps: Step) -> list[Any]:
    """What the backend yields where a real upstream sends these steps."""
    async with upstream(stream(*steps)) as server:
        return await events_of(claude(server.url))


def runs(deltas: list[Delta]) -> list[tuple[Any, str]]:
    """What was said, neighbours of one kind together: the kind, and what it says."""
    found: list[tuple[Any, str]] = []
    for delta in deltas:
        assert delta
        pieces: list[tuple[Any, str]] = [("text", delta.text), ("reasoning", delta.reasoning)]
        pieces += [
            (c.index, f"{c.id} {c.name} " * bool(c.id) + c.arguments) for c in delta.tool_calls
        ]
        for kind, words in pieces:
            if found and found[-1][0] == kind:
                found[-1] = (kind, found[-1][1] + words)
            elif words:
                found.append((kind, words))
    return found


def test_an_answer_is_read_in_its_order() -> None:
    """Thoughts, text and calls come apart and in order; what arrived together is one of a kind."""
    deltas, finish, usage = read(
        begin()
        + event("ping")
        + thought("Hm. ", "Well.", index=0)
        + opened(1, "redacted_thinking", data="c2VjcmV0")
        + closed(1)
        + said("I ", "look", index=2)
        + called("sum", "", '{"x"', ": 1}", index=3)
        + called("now", index=4)
        + said("and wait", index=5)
        + ended("tool_use", 20, output_tokens_details={"thinking_tokens": 6})
    )
    assert deltas == [
        Delta(reasoning="Hm. Well."),
        Delta(text="I look"),
        Delta(tool_calls=(ToolCallDelta(0, "toolu_sum", "sum", '{"x": 1}'),)),
        Delta(tool_calls=(ToolCallDelta(1, "toolu_now", "now", "{}"),)),
        Delta(text="and wait"),
    ]
    assert finish is FinishReason.TOOL_CALLS
    assert usage == Usage(
        prompt_tokens=11, completion_tokens=20, cached_tokens=4, reasoning_tokens=6
    )


def test_what_a_block_begins_with_counts() -> None:
    """Text, thoughts and arguments that stand in a block's beginning are not lost or doubled."""
    deltas, _, _ = read(
        begin(),
        opened(0, "thinking", thinking="Hm."),
        closed(0),
        opened(1, "text", text="Well"),
        closed(1),
        opened(2, "tool_use", id="a", name="sum", input={"x": 1}),
        piece(2, "input_json_delta", partial_json='{"x": 1}'),
        closed(2),
    )
    assert runs(deltas) == [("reasoning", "Hm."), ("text", "Well"), (0, 'a sum {"x": 1}')]


def test_what_is_unknown_is_skipped() -> None:
    """Events, blocks and deltas of new types, and the calls that the provider runs itself, leave
    the answer as it is."""
    deltas, finish, _ = read(
        begin(),
        *[event("something_new", index=0)] * 50,
        *[opened(0, "something_new", x=1), piece(0, "something_new", x=1), closed(0)] * 50,
        opened(1, "server_tool_use", id="srv", name="web_search", input={}),
        piece(1, "input_json_delta", partial_json='{"query"'),
        closed(1),
        opened(2, "web_search_tool_result", tool_use_id="srv", content=[]),
        closed(2),
        opened(3, "text", text=""),
        *[piece(3, "citations_delta", citation={"type": "page_location"})] * 50,
        piece(3, "text_delta", text="well"),
        ended(),
    )
    assert deltas == [Delta(text="well")]
    assert finish is FinishReason.STOP


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
    ],
)
async def test_stop_reasons(word: str, reason: FinishReason) -> None:
    """Every stop reason that ends an answer is one of the contract's."""
    *_, end = await received(begin(), said("well"), ended(word))
    assert end == End(reason, Usage(11, 7, 4))


def test_a_providers_own_stop_reason() -> None:
    """What the catalogue says of a provider's own word is what it means."""
    assert read(begin(), said("well"), ended("out_of_credit"))[1] is FinishReason.LENGTH


@pytest.mark.parametrize(
    "word", ["pause_turn", "compaction", "network_error", "model_error", "something_new"]
)
async def test_a_pause_is_no_end(word: str) -> None:
    """A turn that waits to be gone on with, or broke, or may have, never looks whole."""
    with pytest.raises(BackendError) as caught:
        await received(begin(), said("half"), ended(word))
    assert caught.value.error_class is ErrorClass.PROVIDER_INTERRUPTED


CUT: dict[str, tuple[bytes, ...]] = {
    "nothing": (),
    "beginning": (begin(),),
    "text": (begin(), said("half")),
    "message_stop alone": (begin(), said("half"), event("message_stop")),
    "usage alone": (
        begin(),
        said("half"),
        event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 3}),
    ),
    "half an event": (begin(), said("half"), ended()[:60]),
    "DONE": (begin(), said("half"), b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("where", CUT)
async def test_without_a_stop_reason_it_is_an_interruption(where: str) -> None:
    """A stream that just stops is never whole, wherever it stops."""
    with pytest.raises(BackendError) as caught:
        await received(*CUT[where])
    assert caught.value.error_class is ErrorClass.PROVIDER_INTERRUPTED


@pytest.mark.parametrize(
    "last",
    [
        b"",
        event("message_stop"),
        broken("overloaded_error"),
        b"data: {nonsense\n\n" * 50,
        event("message_delta", delta={}, usage={"output_tokens": 9}) + event("message_stop"),
    ],
    ids=["nothing", "stop", "error", "rubbish", "usage"],
)
async def test_after_the_stop_reason_nothing_spoils_it(last: bytes) -> None:
    """An answer that said how it ended is whole, whatever follows; only its usage may grow."""
    whole = ended().removesuffix(event("message_stop"))
    *_, end = await received(begin(), said("well"), whole + last)
    assert end == End(FinishReason.STOP, Usage(11, 9 if b"9" in last else 7, 4))


async def test_usage_that_comes_late_counts() -> None:
    """Where the stop reason comes first, the figures that follow it are waited for."""
    late = event("message_delta", delta={}, usage={"output_tokens": 9}) + event("message_stop")
    end = event("message_delta", delta={"stop_reason": "end_turn"})
    *_, last = await received(begin(), said("well"), end, Wait(0.1), late)
    assert last == End(FinishReason.STOP, Usage(11, 9, 4))


SENSELESS: list[Any] = ["3", 1e300, float("inf"), 2**70, [], -1]


@pytest.mark.parametrize("value", SENSELESS, ids=repr)
def test_usage_that_cannot_be_true_is_none(value: Any) -> None:
    """Senseless figures are left to an estimate, and spoil nothing."""
    deltas, finish, usage = read(begin(), said("well"), ended(output=value))
    assert (deltas[0].text, finish, usage) == ("well", FinishReason.STOP, None)


def test_usage_of_less_than_the_answer_says_so() -> None:
    """What came before the stop reason is no count of the whole; of nothing there is none."""
    end = event("message_delta", delta={"stop_reason": "end_turn"})
    early = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 3})
    empty = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": None})
    assert read(begin(), said("well"), end)[2] == Usage(11, 1, 4, estimated=True)
    assert read(begin(), early, said("well"), end)[2] == Usage(11, 3, 4, estimated=True)
    assert read(begin(), said("well"), empty)[2] == Usage(11, 1, 4, estimated=True)
    assert read(said("well"), end)[2] is None
    nothing = begin(input_tokens=0, cache_read_input_tokens=0, cache_creation_input_tokens=0)
    assert read(nothing, said("well"), ended(output=0))[2] is None


def test_the_last_figures_count() -> None:
    """Figures are of the whole so far: the last ones replace, and are not added."""
    assert read(begin(), said("well"), ended(output=9, input_tokens=6))[2] == Usage(12, 9, 4)


MALFORMED = [
    b"data: {nonsense\n\n",
    b"data: [1]\n\n",
    b"data: null\n\n",
    b'data: "text"\n\n',
    b"data: {}\n\n",
    b"data: \xff\xfe\n\n",
    b"data: " + b"[" * 200_000 + b"\n\n",
    event("content_block_delta", index=0),
    event("content_block_delta", index=0, delta=3),
    piece(0, "text_delta", text=7),
    event("content_block_start", index=0),
    opened(-1, "tool_use", id="a", name="b", input={}),
    opened(0, "tool_use", id="a"),
    event("content_block_stop", index=[]),
    event("message_delta"),
    event("message_delta", delta={"stop_reason": []}),
]


def test_malformed_events_are_skipped() -> None:
    """What cannot be understood is passed over, and the answer around it is whole."""
    deltas, finish, _ = read(begin(), said("we"), *MALFORMED, said("ll", index=1), ended())
    assert runs(deltas) == [("text", "well")]
    assert finish is FinishReason.STOP


async def test_a_stream_of_malformed_events_is_given_up() -> None:
    """An upstream that sends nothing else has failed."""
    with pytest.raises(BackendError) as caught:
        await received(begin(), *[b"data: {nonsense\n\n"] * 30)
    assert caught.value.error_class is ErrorClass.PROVIDER_PROTOCOL


@pytest.mark.parametrize(
    "chunks",
    [
        [opened(i, "tool_use", id="a", name="b", input={}) for i in range(1000)],
        [b"data: ", *[b"x" * 65536] * 40],
    ],
    ids=["calls that never end", "an event that never ends"],
)
def test_memory_is_bounded(chunks: list[bytes]) -> None:
    """What only grows is given up."""
    with pytest.raises(BackendError) as caught:
        read(*chunks)
    assert caught.value.error_class is ErrorClass.PROVIDER_PROTOCOL


def test_what_came_with_an_error_is_delivered_before_it() -> None:
    """Words that arrive in one piece with an error are heard, so they are not booked as nothing."""
    reader = StreamReader(WORDED)
    deltas = reader.feed(begin() + said("half") + broken("overloaded_error") + said("never"))
    assert runs(deltas) == [("text", "half")]
    assert reader.failure
    assert reader.failure.error_class is ErrorClass.PROVIDER_UNAVAILABLE
    assert not reader.feed(said("more"))


def test_calls_that_end_take_no_memory() -> None:
    """The bound is on calls at a time: an answer may make as many as it likes."""
    deltas, _, _ = read(*[called("now", index=index) for index in range(1000)])
    assert deltas[-1].tool_calls[0].index == 999


def test_half_a_character_does_no_harm() -> None:
    """A lone surrogate, which JSON can write and UTF-8 cannot, does not end the answer."""
    half = (
        b'data: {"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "a\\ud83d"}}\n\n'
    )
    deltas, finish, _ = read(half, ended())
    assert deltas[0].text.encode().startswith(b"a")
    assert finish


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
BLOCKS: st.SearchStrategy[tuple[str, list[str]]] = st.one_of(
    st.tuples(st.just("text"), st.lists(WORDS, max_size=3)),
    st.tuples(st.just("thinking"), st.lists(WORDS, max_size=3)),
    st.tuples(st.just("tool"), st.lists(st.sampled_from(['{"x"', ": 1}", "é"]), max_size=3)),
    st.tuples(st.just("ping"), st.just([])),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A valid stream of any blocks, in either kind of line end."""
    pieces = [begin()]
    for index, (kind, words) in enumerate(draw(st.lists(BLOCKS, max_size=5))):
        match kind:
            case "text":
                pieces.append(said(*words, index=index))
            case "thinking":
                pieces.append(thought(*words, index=index))
            case "tool":
                pieces.append(called(f"tool{index}", *words, index=index))
            case _:
                pieces.append(event("ping"))
    pieces.append(ended(draw(st.sampled_from(["end_turn", "tool_use", "max_tokens"]))))
    whole = b"".join(pieces)
    return whole.replace(b"\n", b"\r\n") if draw(st.booleans()) else whole


def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A valid stream, in pieces that know nothing of its events."""
    return cut(draw, draw(streams()))


@settings(deadline=None)
@given(split_streams())
def test_any_splitting_reads_the_same(chunks: list[bytes]) -> None:
    """Where the network cuts a stream changes nothing of what it says, or of its order."""
    whole = b"".join(chunks)
    for each in (chunks, [bytes([byte]) for byte in whole]):
        deltas, finish, usage = read(*each)
        expected = read(whole)
        assert (runs(deltas), finish, usage) == (runs(expected[0]), *expected[1:])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KINDS = st.sampled_from(
    [
        *["message_start", "content_block_start", "content_block_delta", "content_block_stop"],
        *["message_delta", "message_stop", "ping", "error", "text", "thinking", "tool_use"],
        *["text_delta", "thinking_delta", "input_json_delta", "end_turn"],
    ]
)
FIELDS = st.sampled_from(
    [
        *["index", "delta", "content_block", "message", "usage", "error", "text", "thinking"],
        *["partial_json", "id", "name", "input", "stop_reason", "output_tokens", "input_tokens"],
    ]
)
NEAR = st.recursive(
    KINDS | JSON,
    lambda inner: st.builds(
        lambda kind, fields: {"type": kind, **fields}, KINDS, st.dictionaries(FIELDS, inner)
    ),
    max_leaves=12,
)
RUBBISH = st.one_of(
    st.binary(max_size=30),
    NEAR.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"),
)


@settings(deadline=None)
@given(st.lists(RUBBISH, max_size=10))
def test_rubbish_raises_backend_errors_only(chunks: list[bytes]) -> None:
    """Whatever comes, it is read or it is a failure of the backend; and what is read can be sent
    on."""
    try:
        deltas, _, usage = read(*chunks)
    except BackendError:
        return
    for delta in deltas:
        pieces = (
            delta.text,
            delta.reasoning,
            *(c.id + c.name + c.arguments for c in delta.tool_calls),
        )
        assert all(isinstance(piece.encode(), bytes) for piece in pieces)
    assert usage is None or usage.prompt_tokens + usage.completion_tokens > 0
