"""The OpenAI-compatible backend, through a real server and a real upstream on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from semroute_classifier.documents import ConfigError
from semroute_service.profile import load_profiles
from semroute_service.testing import write_files
from talkers import http, talkers
from upstream import (
    GENEROUS,
    Behaviour,
    Raw,
    Status,
    Stream,
    Told,
    Upstream,
    Wait,
    answer,
    ask,
    failure,
    finish,
    nobody,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from pathlib import Path

    from semroute import RouterClient

ALL = {"first": {"capabilities": ["tools", "images", "json_schema"]}}


async def body(query: Any = "hello there", **options: Any) -> dict[str, Any]:
    """What the upstream is asked."""
    async with upstream() as server, routed(profile(server, models=ALL)) as client:
        return await asked(server, client, query, **options)


async def asked(
    server: Upstream, client: RouterClient, *query: Any, **options: Any
) -> dict[str, Any]:
    """What the upstream is asked this time."""
    assert (await ask(client, *query, **options)).finish
    body: dict[str, Any] = server.requests[-1].body
    return body


async def test_what_is_unset_is_not_sent() -> None:
    """A plain question is the model, the message and the wish for a stream with usage."""
    assert await body("hi") == {
        "model": "first-id",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_conversation_is_sent_in_order_and_whole() -> None:
    """System and earlier turns, tool calls and their results reach the upstream in its form."""
    calls = [
        pb.Part(tool_call=pb.ToolCall(id="a", name="look", arguments='{"x": 1}')),
        pb.Part(tool_call=pb.ToolCall(id="b", name="look")),
    ]
    results = [
        pb.Part(tool_result=pb.ToolResult(tool_call_id="a", text="one")),
        pb.Part(tool_result=pb.ToolResult(tool_call_id="b")),
    ]
    sent = await body(
        [
            pb.Message(role=pb.ROLE_SYSTEM, text="Be brief."),
            pb.Message(role=pb.ROLE_USER, text="Look.", parts=[pb.Part(text="Twice.")]),
            pb.Message(role=pb.ROLE_ASSISTANT, parts=calls),
            pb.Message(role=pb.ROLE_TOOL, parts=results),
            pb.Message(role=pb.ROLE_ASSISTANT, text="One."),
            pb.Message(role=pb.ROLE_USER, text="And?"),
        ]
    )

    def call(name: str, arguments: str) -> dict[str, Any]:
        function = {"name": "look", "arguments": arguments}
        return {"id": name, "type": "function", "function": function}

    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look.\nTwice."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("a", '{"x": 1}'), call("b", "{}")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And?"},
    ]


async def test_images_are_sent_by_url_and_by_value() -> None:
    """Text and pictures keep their order; bytes become a data URL."""
    images = [
        pb.Image(url="https://example.org/a.png"),
        pb.Image(data=b"\x89PNG", media_type="image/png"),
    ]
    parts = [pb.Part(image=image) for image in images]
    sent = await body([pb.Message(role=pb.ROLE_USER, text="Compare.", parts=parts)])
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "Compare."},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO), "auto"),
        (pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE), "none"),
        (pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED), "required"),
        (pb.ToolChoice(tool="sum"), {"type": "function", "function": {"name": "sum"}}),
    ],
    ids=str,
)
async def test_tools_and_tool_choice(choice: pb.ToolChoice | None, expected: Any) -> None:
    """Tools are sent with their schemas, and the choice in the upstream's form."""
    schema = {"type": "object", "properties": {"x": {"type": "number"}}}
    tools = [
        pb.Tool(name="sum", description="Adds.", parameters_schema=json.dumps(schema)),
        pb.Tool(name="now"),
    ]
    sent = await body(tools=tools, tool_choice=choice)
    nothing = {"type": "object", "properties": {}}
    assert [tool["function"] for tool in sent["tools"]] == [
        {"name": "sum", "description": "Adds.", "parameters": schema},
        {"name": "now", "description": "", "parameters": nothing},
    ]
    assert sent.get("tool_choice") == expected


JSON_SCHEMA = pb.ResponseFormat(
    type=pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA, schema='{"type": "object"}', name="n", strict=True
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            JSON_SCHEMA,
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
        ),
        (pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_JSON_OBJECT), {"type": "json_object"}),
        (pb.ResponseFormat(type=pb.RESPONSE_FORMAT_TYPE_TEXT), None),
    ],
    ids=["schema", "object", "text"],
)
async def test_response_formats(wanted: pb.ResponseFormat, expected: Any) -> None:
    """A schema is sent with its name and strictness, any object as such, free text not at all."""
    assert (await body(response_format=wanted)).get("response_format") == expected


async def test_sampling_is_sent_zeros_included() -> None:
    """Every parameter that the caller set arrives, also one that is set to zero."""
    sampling = pb.Sampling(temperature=0, top_p=0.5, max_tokens=9, stop=["a", "b"], seed=0)
    wanted = {"temperature": 0, "top_p": 0.5, "max_tokens": 9, "stop": ["a", "b"], "seed": 0}
    assert wanted.items() <= (await body(sampling=sampling)).items()


async def test_the_row_fills_in_what_the_caller_left_unset() -> None:
    """A row's max_tokens and temperature hold where the caller says nothing."""
    row = {"max_tokens": 50, "temperature": 0.7}
    async with upstream() as server, routed(profile(server, row=row)) as client:
        await ask(client)
        await ask(client, sampling=pb.Sampling(max_tokens=5, temperature=0))
    sent = [(r.body["max_tokens"], r.body["temperature"]) for r in server.requests]
    assert sent == [(50, 0.7), (5, 0)]


@pytest.mark.parametrize(
    ("provider", "field", "asks_for_usage"),
    [("openai", "max_completion_tokens", True), ("mistral", "max_tokens", False)],
)
async def test_what_differs_between_providers(
    monkeypatch: pytest.MonkeyPatch, provider: str, field: str, asks_for_usage: bool
) -> None:
    """The catalogue decides how the token limit is called and whether usage is asked for."""
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "k")
    cloud = {"first": {"provider": provider}}
    governance = {"allow_cloud": True}
    async with (
        upstream() as server,
        routed(profile(server, backends=cloud, governance=governance)) as client,
    ):
        await ask(client, sampling=pb.Sampling(max_tokens=5))
    assert server.body[field] == 5
    assert ("stream_options" in server.body) is asks_for_usage


async def test_the_key_is_sent_and_never_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The key goes to the upstream as Bearer; an upstream that repeats it gives nothing away."""
    monkeypatch.setenv("VLLM_API_KEY", " sk-secret\n")
    caplog.set_level(logging.DEBUG)
    echoes: list[Behaviour] = [Status(code, failure("bad key sk-secret")) for code in (401, 400)]
    broken = stream(say("well"), Wait(0.1), failure("sk-secret"))
    told: list[Told] = []
    for behaviour in (*echoes, broken, answer()):
        async with upstream(behaviour) as server, routed(profile(server, models=ALL)) as client:
            told.append(await ask(client))
        assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert [t.error.reason if t.error else "OK" for t in told] == [
        "UPSTREAM_CREDENTIALS",
        "UPSTREAM_INVALID_REQUEST",
        "STREAM_INTERRUPTED",
        "OK",
    ]
    assert "sk-secret" not in "".join(t.everything for t in told) + caplog.text


async def test_a_key_that_no_header_can_carry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A key with a line break inside or letters beyond ASCII is a credentials failure, untold; the
    log names its variable."""
    caplog.set_level(logging.INFO)
    async with upstream() as server, routed(profile(server)) as client:
        for key in ("sk-se\ncret", "sk-sécret"):
            monkeypatch.setenv("VLLM_API_KEY", key)
            told = await ask(client)
            assert told.failures == [("first", "PROVIDER_CREDENTIALS")]
            assert key not in told.everything + caplog.text
    assert "VLLM_API_KEY holds a character that no header can carry" in caplog.text
    assert not server.requests


async def test_without_a_key_none_is_sent() -> None:
    """A vLLM without key gets no authorization header at all."""
    async with upstream() as server, routed(profile(server)) as client:
        await ask(client)
    assert "authorization" not in server.requests[0].headers


async def test_a_models_own_fields_add_and_replace_nothing() -> None:
    """Further fields reach the upstream as written; what the request says goes before them."""
    extra = {"reasoning_effort": "low", "temperature": 0.1, "stop": ["x"], "top_k": 7}
    models = {"first": {"extra_body": extra}}
    async with upstream() as server, routed(profile(server, models=models)) as client:
        sent = await asked(server, client, "hi", sampling=pb.Sampling(temperature=0.7))
        assert (sent["reasoning_effort"], sent["top_k"], sent["stop"]) == ("low", 7, ["x"])
        assert (sent["temperature"], sent["model"]) == (0.7, "first-id")


@pytest.mark.parametrize(
    "field", ["model", "messages", "stream", "stream_options", "n", "max_completion_tokens"]
)
def test_a_field_that_every_request_sets_is_refused(field: str, tmp_path: Path) -> None:
    """Whoever writes one into a profile is told where, and why not."""
    models = {"first": {"extra_body": {field: 1}}}
    write_files(tmp_path, {"it": profile(nobody(), models=models)})
    with pytest.raises(ConfigError, match=rf"models\.first\.extra_body\.{field}.*must not be set"):
        load_profiles(tmp_path)


async def test_a_rows_default_that_the_provider_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A temperature that nobody but the row asks for does not reach a model that has none."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    parts: dict[str, Any] = {
        "backends": {"first": {"provider": "openai"}},
        "models": {"first": {"id": "o3-mini"}},
        "row": {"temperature": 0.2, "max_tokens": 50},
        "governance": {"allow_cloud": True},
    }
    async with upstream() as server, routed(profile(server, **parts)) as client:
        sent = await asked(server, client)
    assert "temperature" not in sent
    assert sent["max_completion_tokens"] == 50


async def test_mistral_gets_short_ids_of_tool_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation from elsewhere is understood: a call and its result keep the same id, of nine
    letters and digits, and those that have one already keep theirs."""
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    ids = ["call_8fjK-2", "D681PevKs"]
    calls = [pb.Part(tool_call=pb.ToolCall(id=name, name="look")) for name in ids]
    results = [pb.Part(tool_result=pb.ToolResult(tool_call_id=name, text="1")) for name in ids]
    said = [
        pb.Message(role=pb.ROLE_USER, text="Look."),
        pb.Message(role=pb.ROLE_ASSISTANT, parts=calls),
        pb.Message(role=pb.ROLE_TOOL, parts=results),
        pb.Message(role=pb.ROLE_USER, text="And?"),
    ]
    parts: dict[str, Any] = {
        "backends": {"first": {"provider": "mistral"}},
        "models": ALL,
        "governance": {"allow_cloud": True},
    }
    async with upstream() as server, routed(profile(server, **parts)) as client:
        sent = (await asked(server, client, said))["messages"]
        again = (await asked(server, client, said))["messages"]
    called = [call["id"] for call in sent[1]["tool_calls"]]
    assert called == [sent[2]["tool_call_id"], sent[3]["tool_call_id"]]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", name) for name in called)
    assert called[1] == "D681PevKs"
    assert sent == again


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Neither the conversation nor the key goes where an upstream points."""
    monkeypatch.setenv("VLLM_API_KEY", "sk-secret")
    async with upstream() as other:
        moved = Status(code, headers={"location": f"{other.url}/chat/completions"})
        async with upstream(moved) as server, routed(profile(server)) as client:
            told = await ask(client)
    assert told.failures == [("first", "PROVIDER_PROTOCOL")]
    assert not other.requests


@pytest.mark.parametrize(
    "behaviour",
    [
        Stream((say("well"), finish()), content_type="application/json"),
        Stream((say("well"), finish()), content_type="text/html"),
        Status(200, {"choices": [{"message": {"content": "well"}}]}),
        Status(204),
        Raw(b"what is this?\r\n\r\n"),
    ],
    ids=["json", "html", "no stream", "no content", "no HTTP"],
)
async def test_what_is_no_event_stream_is_no_answer(behaviour: Behaviour) -> None:
    """An answer of another kind is a protocol failure, whatever it holds."""
    async with upstream(behaviour) as server, routed(profile(server)) as client:
        told = await ask(client)
    assert told.failures == [("first", "PROVIDER_PROTOCOL")]
    assert not told.deltas


async def test_a_model_without_id_takes_the_first_that_is_listed() -> None:
    """Where the profile leaves the id to the backend, its own list decides, time after time."""
    async with (
        upstream(models=("served", "other")) as server,
        routed(profile(server, models={"first": {"id": ""}})) as client,
    ):
        assert (await asked(server, client))["model"] == "served"
        server.models = ("newer",)
        assert (await asked(server, client))["model"] == "newer"
        server.models = ()
        assert (await ask(client)).failures == [("first", "PROVIDER_MODEL_NOT_FOUND")]


async def test_an_optional_backend_counts_only_while_it_answers() -> None:
    """Absent, it is denied by not_running in Decide; when it has come up, it is admitted."""
    url = nobody()
    optional = {"first": {"optional": True}}
    async with (
        upstream() as second,
        routed(profile(url, second, backends=optional), probe_seconds=0.05) as client,
    ):
        decision = await client.decide("hello there")
        denied = decision.candidates[0]
        assert (denied.model, denied.ruling) == ("first", pb.RULING_DENIED)
        assert (denied.rule, decision.model) == ("not_running", "second")
        async with (
            upstream(models=("first-id",), port=int(url.split(":")[2][:-3])),
            asyncio.timeout(GENEROUS),
        ):
            while (await client.decide("hello there")).model != "first":
                await asyncio.sleep(0.05)


async def test_an_optional_backend_that_went_away_is_not_called() -> None:
    """What has gone since the decision is denied before its attempt, and the next one answers."""
    optional = {"first": {"optional": True}}
    async with (
        upstream() as second,
        upstream(models=("first-id",)) as first,
        routed(profile(first, second, backends=optional), probe_seconds=0.05) as client,
        asyncio.timeout(GENEROUS),
    ):
        assert (await ask(client)).finish.model == "first"
        first.models = ()
        while (await ask(client)).finish.model == "first":
            await asyncio.sleep(0.05)


async def test_blanks_are_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose key is blank is denied like one whose key is not set."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", " \n")
    cloud, governance = {"first": {"provider": "deepseek"}}, {"allow_cloud": True}
    async with (
        upstream(answer()) as server,
        routed(profile(server, backends=cloud, governance=governance)) as client,
    ):
        told = await ask(client)
    assert told.error
    assert [v.rule for v in told.error.violations] == ["no_credentials"]


async def test_a_server_that_is_no_model_server_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """At the start, with the address that was asked."""
    async with (
        talkers({"it": {"/v1/models": http(200, "<html>hello</html>")}}) as up,
        routed(profile(up["it"].url)),
    ):
        pass
    assert f"not with a list of models at {up['it'].url}/models" in caplog.text
