"""The Messages API: what it is asked, what is refused before it is, and a real server before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from messages import (
    HELLO,
    begin,
    broken,
    called,
    claude,
    ended,
    event,
    events_of,
    reply,
    said,
    thought,
)
from semroute.v1 import router_pb2 as pb
from semroute_service.backends import BackendError
from semroute_service.backends.anthropic_request import DEFAULT_MAX_TOKENS
from semroute_service.decision import ErrorClass
from semroute_service.query import (
    Image,
    JsonFormat,
    Message,
    NamedTool,
    Options,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from upstream import (
    GENEROUS,
    Behaviour,
    Cut,
    Status,
    Told,
    Wait,
    answer,
    ask,
    outcome,
    profile,
    routed,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from semroute import RouterClient
    from upstream import Upstream

EFFORT = {"output_config": {"effort": "low"}}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
ALL = {"first": {"capabilities": ["tools", "images", "json_schema"]}}


async def body(
    messages: tuple[Message, ...] = HELLO, options: Options | None = None, **model: Any
) -> dict[str, Any]:
    """What the upstream is asked."""
    async with upstream(reply()) as server:
        await events_of(claude(server.url, **model), messages, options)
    return server.body


async def test_what_is_unset_is_not_sent() -> None:
    """A plain question is the model, the message, a length, and the wish for a stream."""
    assert await body() == {
        "model": "claude-id",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "stream": True,
    }


async def test_conversation_is_sent_whole_in_turns() -> None:
    """System messages stand apart, the turns alternate, and all results of a turn are one
    message with what the user adds behind them."""
    sent = await body(
        (
            Message(Role.SYSTEM, ("Be brief.",)),
            Message(Role.USER, ("Look.",)),
            Message(Role.USER, ("Twice.",)),
            Message(Role.ASSISTANT, ("So:", ToolCall("a", "look", '{"x": 1}'))),
            Message(Role.ASSISTANT, (ToolCall("b", "look", "{}"),)),
            Message(Role.TOOL, (ToolResult("a", "one"),)),
            Message(Role.USER, ("Now?",)),
            Message(Role.TOOL, (ToolResult("b", ""),)),
            Message(Role.SYSTEM, ("Be kind.",)),
        )
    )

    def call(name: str, given: dict[str, int]) -> dict[str, Any]:
        return {"type": "tool_use", "id": name, "name": "look", "input": given}

    assert sent["system"] == "Be brief.\n\nBe kind."
    assert sent["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look."}, {"type": "text", "text": "Twice."}],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "So:"}, call("a", {"x": 1}), call("b", {})],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b"},
                {"type": "text", "text": "Now?"},
            ],
        },
    ]


async def test_calls_of_other_providers_keep_their_results() -> None:
    """An id in letters that the API does not take is rewritten the same in call and result."""
    sent = await body(
        (
            *HELLO,
            Message(Role.ASSISTANT, (ToolCall("functions.look:0", "look", "{}"),)),
            Message(Role.TOOL, (ToolResult("functions.look:0", "one"),)),
        )
    )
    (call,), (result,) = (turn["content"] for turn in sent["messages"][1:])
    assert call["id"] == result["tool_use_id"] == "functions_look_0"


async def test_images_are_sent_by_url_and_by_value() -> None:
    """Text and pictures keep their order; bytes and data URLs become base64, other URLs stay."""
    images = (
        Image(url="https://example.org/a.png"),
        Image(data=b"\x89PNG", media_type="image/png"),
        Image(url="data:image/gif;base64,R0lG"),
    )
    sent = await body((Message(Role.USER, ("Compare.", *images)),))
    first, *rest = sent["messages"][0]["content"]
    assert first == {"type": "text", "text": "Compare."}
    assert [block["type"] for block in rest] == ["image"] * 3
    assert [block["source"] for block in rest] == [
        {"type": "url", "url": "https://example.org/a.png"},
        {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
        {"type": "base64", "media_type": "image/gif", "data": "R0lG"},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (ToolChoice.AUTO, {"type": "auto"}),
        (ToolChoice.NONE, {"type": "none"}),
        (ToolChoice.REQUIRED, {"type": "any"}),
        (NamedTool("sum"), {"type": "tool", "name": "sum"}),
    ],
    ids=str,
)
async def test_tools_and_tool_choice(choice: ToolChoice | NamedTool | None, expected: Any) -> None:
    """Tools are sent with their schemas, and the choice in the API's own words."""
    schema: dict[str, object] = {"type": "object", "properties": {"x": {"type": "number"}}}
    tools = (Tool("sum", "Adds.", schema), Tool("now", "", {"type": "object"}))
    sent = await body(options=Options(tools=tools, tool_choice=choice))
    assert sent["tools"] == [
        {"name": "sum", "description": "Adds.", "input_schema": schema},
        {"name": "now", "input_schema": {"type": "object"}},
    ]
    assert sent.get("tool_choice") == expected


async def test_a_schema_is_the_format_of_the_output() -> None:
    """A schema is sent as the API's structured output, beside the effort that the profile sets."""
    wanted = Options(response_format=JsonFormat({"type": "object"}))
    format_ = {"type": "json_schema", "schema": {"type": "object"}}
    assert (await body(options=wanted))["output_config"] == {"format": format_}
    both = await body(options=wanted, extra_body=EFFORT)
    assert both["output_config"] == {"effort": "low", "format": format_}
    assert (await body(extra_body=EFFORT))["output_config"] == {"effort": "low"}


async def test_sampling_is_sent_zeros_included() -> None:
    """Every parameter that the API takes arrives, also one that is set to zero."""
    sampling = Sampling(temperature=0, top_p=0.5, max_tokens=9, stop=("a", "b"))
    wanted = {"temperature": 0, "top_p": 0.5, "max_tokens": 9, "stop_sequences": ["a", "b"]}
    assert wanted.items() <= (await body(options=Options(sampling))).items()


async def test_an_answer_of_unstated_length_gets_one() -> None:
    """Nobody's word is the default, within the context, and beside what thinking may use."""
    assert (await body(context=1000))["max_tokens"] == 1000
    assert (await body(extra_body=THINKING))["max_tokens"] == DEFAULT_MAX_TOKENS + 2048
    asked = Options(Sampling(max_tokens=9))
    assert (await body(options=asked, context=1000))["max_tokens"] == 9


async def test_further_fields_add_and_override_nothing() -> None:
    """What the profile adds to a model is sent, and what the request itself says stands."""
    taken = {"model": "x", "messages": [], "stream": False, "max_tokens": 1, "temperature": 1}
    asked = Options(Sampling(temperature=0.5))
    sent = await body(options=asked, extra_body={**THINKING, **taken})
    assert sent["thinking"] == THINKING["thinking"]
    assert (sent["model"], sent["stream"], sent["temperature"]) == ("claude-id", True, 0.5)
    assert sent["messages"]
    assert sent["max_tokens"] > 1


CALL = (*HELLO, Message(Role.ASSISTANT, (ToolCall("a", "look", "{}"),)))
REFUSED: dict[str, tuple[tuple[Message, ...], Options, dict[str, Any]]] = {
    "prefill": ((*HELLO, Message(Role.ASSISTANT, ("The answer is",))), Options(), {}),
    "seed": (HELLO, Options(Sampling(seed=1)), {}),
    "hot": (HELLO, Options(Sampling(temperature=1.5)), {}),
    "JSON without schema": (HELLO, Options(response_format=JsonFormat()), {}),
    "TIFF": (
        (Message(Role.USER, ("See.", Image(data=b"II", media_type="image/tiff"))),),
        Options(),
        {},
    ),
    "data URL": ((Message(Role.USER, ("See.", Image(url="data:image/png,raw"))),), Options(), {}),
    "arguments": ((*HELLO, Message(Role.ASSISTANT, (ToolCall("a", "b", "[1]"),))), Options(), {}),
    "thoughts": ((*CALL, Message(Role.TOOL, (ToolResult("a", "1"),))), Options(), THINKING),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_the_api_cannot_express_is_not_asked(what: str) -> None:
    """It is refused as the caller's, with a reason for the log, and nothing is sent."""
    messages, options, extra = REFUSED[what]
    async with upstream(reply()) as server:
        with pytest.raises(BackendError) as caught:
            await events_of(claude(server.url, extra_body=extra), messages, options)
    assert caught.value.error_class is ErrorClass.CALLER_INVALID_REQUEST
    assert caught.value.detail.startswith("not asked: ")
    assert not server.requests


async def test_what_a_model_refuses_gives_way() -> None:
    """A row's temperature is not sent to a model that takes none."""
    async with upstream(reply()) as server:
        model = claude(server.url)
        provider = model.backend.provider.model_validate(
            {
                **model.backend.provider.model_dump(),
                "models": {"claude-*": {"refuse": ["temperature"]}},
            }
        )
        model = replace(model, backend=replace(model.backend, provider=provider))
        await events_of(model, options=Options(Sampling(temperature=0.2, top_p=0.5)))
    assert "temperature" not in server.body
    assert server.body["top_p"] == 0.5


@contextlib.asynccontextmanager
async def served(
    *behaviours: Behaviour, **parts: Any
) -> AsyncIterator[tuple[RouterClient, Upstream, Upstream]]:
    """A client of a real server: Claude behaves like this, and a vLLM stands behind it."""
    rest = {"governance": {"allow_cloud": True}, "backends": {"first": {"provider": "anthropic"}}}
    async with (
        upstream(*behaviours) as first,
        upstream(answer("from the second")) as second,
        routed(profile(first, second, **{"models": ALL, **rest, **parts})) as client,
    ):
        yield client, first, second


async def tell(*behaviours: Behaviour, **options: Any) -> Told:
    async with served(*behaviours) as (client, _, _):
        return await ask(client, **options)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")


async def test_text_arrives_with_its_cached_usage() -> None:
    """A caller gets the text, how it ended, and the prompt's tokens with those from a cache."""
    told = await tell(stream(begin(), said("wéll, ", "well"), ended(output=9)))
    assert told.text == "wéll, well"
    assert (told.finish.reason, told.finish.model) == (pb.FINISH_REASON_STOP, "first")
    assert told.finish.usage == pb.Usage(prompt_tokens=11, completion_tokens=9, cached_tokens=4)


async def test_reasoning_and_parallel_tools_arrive() -> None:
    """A caller gets thoughts apart from text, and every call with its own arguments."""
    told = await tell(
        stream(
            begin(),
            thought("Hm. ", "Two.", index=0),
            said("I look.", index=1),
            called("sum", '{"x"', ": 1}", index=2),
            called("now", index=3),
            ended("tool_use"),
        ),
        tools=[pb.Tool(name="sum"), pb.Tool(name="now")],
    )
    assert "".join(delta.reasoning for delta in told.deltas) == "Hm. Two."
    assert told.text == "I look."
    calls = [call for delta in told.deltas for call in delta.tool_calls]
    assert [(c.index, c.id, c.name) for c in calls if c.id] == [
        (0, "toolu_sum", "sum"),
        (1, "toolu_now", "now"),
    ]
    arguments = ["".join(c.arguments for c in calls if c.index == index) for index in (0, 1)]
    assert arguments == ['{"x": 1}', "{}"]
    assert told.finish.reason == pb.FINISH_REASON_TOOL_CALLS


async def test_a_tool_loop_goes_on() -> None:
    """Calls and results that come back in the caller's words reach the API in its own."""
    call = pb.Part(tool_call=pb.ToolCall(id="toolu_sum", name="sum", arguments='{"x": 1}'))
    result = pb.Part(tool_result=pb.ToolResult(tool_call_id="toolu_sum", text="1"))
    async with served(reply()) as (client, first, _):
        told = await ask(
            client,
            [
                pb.Message(role=pb.ROLE_USER, text="Add."),
                pb.Message(role=pb.ROLE_ASSISTANT, parts=[call]),
                pb.Message(role=pb.ROLE_TOOL, parts=[result]),
            ],
            tools=[pb.Tool(name="sum", parameters_schema='{"type": "object"}')],
        )
    assert told.finish.model == "first"
    assert [turn["content"][0]["type"] for turn in first.body["messages"]] == [
        "text",
        "tool_use",
        "tool_result",
    ]


BEFORE: dict[str, tuple[Behaviour, str]] = {
    "529": (Status(529, {"error": {"type": "overloaded_error"}}), "PROVIDER_UNAVAILABLE"),
    "overloaded": (stream(begin(), broken("overloaded_error")), "PROVIDER_UNAVAILABLE"),
    "rate limit": (stream(broken("rate_limit_error")), "PROVIDER_RATE_LIMIT"),
    "api error": (stream(broken("api_error")), "PROVIDER_UNAVAILABLE"),
    "new error": (stream(broken("something_new")), "PROVIDER_UNAVAILABLE"),
    "no key": (stream(broken("authentication_error")), "PROVIDER_CREDENTIALS"),
    "no permission": (stream(broken("permission_error")), "PROVIDER_CREDENTIALS"),
    "no money": (stream(broken("billing_error")), "PROVIDER_CREDENTIALS"),
    "no model": (stream(broken("not_found_error")), "PROVIDER_MODEL_NOT_FOUND"),
    "too large": (stream(broken("request_too_large")), "CALLER_CONTEXT_LENGTH"),
    "too long": (
        stream(broken("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")),
        "CALLER_CONTEXT_LENGTH",
    ),
    "413": (Status(413, {"error": {"type": "request_too_large"}}), "CALLER_CONTEXT_LENGTH"),
    "400, too long": (
        Status(400, {"error": {"type": "invalid_request_error", "message": "prompt is too long"}}),
        "CALLER_CONTEXT_LENGTH",
    ),
    "400, no money": (
        Status(
            400,
            {"error": {"type": "invalid_request_error", "message": "credit balance is too low"}},
        ),
        "PROVIDER_CREDENTIALS",
    ),
    "nothing but pings": (stream(begin(), event("ping")), "PROVIDER_CONNECT"),
    "cut": (stream(begin(), Cut()), "PROVIDER_CONNECT"),
}


@pytest.mark.parametrize("how", BEFORE)
async def test_before_the_first_delta_the_next_one_answers(how: str) -> None:
    """A failure before anything was promised leads to the next candidate, under its own name."""
    behaviour, error_class = BEFORE[how]
    told = await tell(behaviour)
    assert told.failures == [("first", error_class)]
    assert told.text == "from the second"
    assert [outcome(a)[0] for a in told.finish.attempts] == ["first", "second"]


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "invalid_request_error"])
async def test_after_the_first_delta_it_is_an_interruption(kind: str) -> None:
    """An error behind the first words ends the answer, and nobody else goes on with it."""
    async with served(stream(begin(), said("half"), Wait(0.1), broken(kind))) as parts:
        client, _, second = parts
        told = await ask(client)
    assert told.text == "half"
    assert told.answer.finish is None
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert not second.requests


async def test_a_refusal_is_the_content_filter() -> None:
    """A model that declines before its first word has filtered, and is not routed around."""
    told = await tell(stream(begin(), ended("refusal", output=0)))
    assert told.error
    assert told.error.reason == "CONTENT_FILTERED"


async def test_a_seed_is_denied_by_governance() -> None:
    """A request with a seed goes to the candidate that takes one; Claude is not asked."""
    async with served(reply()) as (client, first, _):
        told = await ask(client, sampling=pb.Sampling(seed=1))
    assert told.finish.model == "second"
    assert not first.requests


async def test_the_key_is_sent_in_its_header_and_never_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The key goes to the upstream as x-api-key, beside the version; nobody else sees it."""
    caplog.set_level(logging.DEBUG)
    echo = {"error": {"type": "authentication_error", "message": "invalid x-api-key sk-ant-secret"}}
    async with served(reply(), Status(401, echo)) as (client, first, _):
        told = [await ask(client) for _ in range(2)]
    headers = first.requests[0].headers
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-secret", "2023-06-01")
    assert "authorization" not in headers
    assert told[1].failures == [("first", "PROVIDER_CREDENTIALS")]
    assert "sk-ant-secret" not in "".join(t.everything for t in told) + caplog.text


async def test_a_caller_that_leaves_ends_the_call() -> None:
    """When the caller goes away in the middle of an answer, the upstream's connection is closed."""
    async with served(stream(begin(), said("half"), Wait())) as (client, first, _):
        async with client.complete("hello there", timeout=30) as told:
            async for _ in told:
                break
        (received,) = first.requests
        await asyncio.wait_for(received.left.wait(), GENEROUS)


async def test_the_row_fills_in_what_the_caller_left_unset() -> None:
    """A row's max_tokens holds where the caller says nothing."""
    async with served(reply(), row={"max_tokens": 50}) as (client, first, _):
        await ask(client)
        await ask(client, sampling=pb.Sampling(max_tokens=5))
    assert [r.body["max_tokens"] for r in first.requests] == [50, 5]
