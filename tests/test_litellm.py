"""The protocol litellm: LiteLLM's own acompletion against a real upstream on loopback."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import logging
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from semroute import RouterClient
from semroute.v1 import router_pb2 as pb
from semroute_service.backends import BackendError, litellm
from semroute_service.backends.base import ChatRequest, Clocks
from semroute_service.backends.litellm import ERROR_CLASSES, LiteLLMBackend
from semroute_service.profile import Backend, Model, Provider
from semroute_service.query import Message, Options, Role, Sensitivity
from semroute_service.testing import running_server
from upstream import (
    DONE,
    GENEROUS,
    USAGE,
    Behaviour,
    Cut,
    Status,
    Told,
    Wait,
    answer,
    ask,
    failure,
    finish,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from pathlib import Path

    from semroute_service.backends import Event

INSTALLED = importlib.util.find_spec("litellm") is not None
installed = pytest.mark.skipif(not INSTALLED, reason="semroute[litellm] is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore")]  # LiteLLM's own are not ours to heed

ANY = Provider(
    id="litellm", name="LiteLLM", protocol="litellm", locality="cloud", key_required=False
)
PARTS: dict[str, Any] = {
    "models": {"first": {"id": "openai/some-model", "capabilities": ["tools", "json_schema"]}},
    "backends": {"first": {"provider": "litellm"}},
    "governance": {"allow_cloud": True},
}


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Its import takes longer on a busy machine than a test waits for an answer."""
    if INSTALLED:
        asyncio.run(LiteLLMBackend().prepare())


async def tell(*behaviours: Behaviour, **options: Any) -> Told:
    """What a caller is told where LiteLLM's upstream behaves like this, a vLLM behind it."""
    async with (
        upstream(*behaviours) as first,
        upstream(answer("from the second")) as second,
        routed(profile(first, second, **PARTS)) as client,
    ):
        return await ask(client, **options)


async def events_of(model_id: str, url: str = "") -> list[Event]:
    """All that the backend itself yields."""
    backend = Backend("first", ANY, url, False, "", Sensitivity.PUBLIC)
    model = Model("first", model_id, backend, frozenset())
    request = ChatRequest(model, (Message(Role.USER, ("hello",)),), Options())
    return [event async for event in LiteLLMBackend().stream(request)]


@pytest.mark.skipif(INSTALLED, reason="semroute[litellm] is installed")
async def test_without_the_extra_the_next_one_is_chosen() -> None:
    """Where the library is missing its models are denied, in Decide too, and the decision says what
    to install."""
    told = await tell(answer())
    assert told.text == "from the second"
    assert not told.failures
    assert told.answer.decision
    first, second = told.answer.decision.candidates
    assert (first.rule, second.rule) == ("no_credentials", "")
    assert "pip install 'semroute[litellm]'" in first.reason


async def test_one_that_cannot_be_imported_is_a_failure_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps neither the server from serving nor the next candidate from answering."""
    (tmp_path / "litellm.py").write_text("raise ImportError('INNER')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    told = await tell(answer())
    assert told.text == "from the second"
    assert told.failures == [("first", "PROVIDER_PROTOCOL")]


@pytest.mark.parametrize("known", [{"headers": 5.0}, {"idle_bytes": 5.0}])
def test_a_clock_that_is_left_out_is_not_the_other_one(known: dict[str, float]) -> None:
    """LiteLLM has one for both, which is then no shorter than either."""
    assert litellm._limits(Clocks(**known))["timeout"] > 60
    assert litellm._limits(Clocks(headers=5.0, idle_bytes=7.0))["timeout"] == 7


@installed
async def test_a_server_that_is_ready_has_it_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds, which are part of the start and not of the first answer."""
    load = mock.Mock(wraps=litellm._load)
    monkeypatch.setattr(litellm, "_load", load)
    async with (
        upstream(answer()) as first,
        running_server(profile=profile(first, **PARTS)) as server,
        RouterClient(server.address) as client,
    ):
        await server.server.ready()
        assert load.call_count == 1
        assert (await ask(client)).finish
        assert load.call_count == 1


@installed
async def test_text_arrives_piece_by_piece_with_its_usage() -> None:
    """Thoughts and text come while the upstream still speaks, with the usage that it reported."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}
    spoken = (say(reasoning_content="Hm."), say("one "), Wait(0.2), say("two"))
    told = await tell(stream(*spoken, finish(), {"choices": [], "usage": usage}, DONE))
    assert [delta.reasoning for delta in told.deltas if delta.reasoning] == ["Hm."]
    assert [delta.text for delta in told.deltas if delta.text] == ["one ", "two"]
    assert told.text == "one two"
    assert told.finish.reason == pb.FINISH_REASON_STOP
    assert told.finish.usage == pb.Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=4)


@installed
async def test_usage_that_did_not_come_is_estimated() -> None:
    """A count of LiteLLM's own making is not taken for the upstream's."""
    told = await tell(stream(say("well, well"), finish(), DONE))
    assert told.finish.usage.estimated
    assert told.finish.usage.completion_tokens > 0


@installed
async def test_parallel_tool_calls() -> None:
    """Pieces of several calls keep their index, and the arguments can be put together."""

    def call(index: int, arguments: str, **rest: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **{k: v for k, v in rest.items() if k == "name"}}
        return {"index": index, "type": "function", "function": function, "id": rest.get("id")}

    told = await tell(
        stream(
            say(tool_calls=[call(0, '{"x"', id="a", name="sum")]),
            say(tool_calls=[call(0, ": 1}")]),
            say(tool_calls=[call(1, "{}", id="b", name="now")]),
            finish("tool_calls", usage=USAGE),
            DONE,
        ),
        tools=[pb.Tool(name="sum"), pb.Tool(name="now")],
    )
    calls = [call for delta in told.deltas for call in delta.tool_calls]
    assert [(c.index, c.id, c.name) for c in calls if c.id] == [(0, "a", "sum"), (1, "b", "now")]
    arguments = ["".join(c.arguments for c in calls if c.index == index) for index in (0, 1)]
    assert arguments == ['{"x": 1}', "{}"]
    assert told.finish.reason == pb.FINISH_REASON_TOOL_CALLS


@installed
async def test_what_the_caller_sets_reaches_the_upstream() -> None:
    """Sampling, tools and the format of the output go out as LiteLLM writes them."""
    schema = pb.ResponseFormat(
        type=pb.RESPONSE_FORMAT_TYPE_JSON_SCHEMA, schema='{"type": "object"}', name="n"
    )
    async with upstream() as server, routed(profile(server, **PARTS)) as client:
        await ask(
            client,
            sampling=pb.Sampling(temperature=0, top_p=0.5, max_tokens=9, stop=["a"], seed=3),
            tools=[pb.Tool(name="sum")],
            response_format=schema,
        )
    wanted = {"temperature": 0, "top_p": 0.5, "max_tokens": 9, "stop": ["a"], "seed": 3}
    assert wanted.items() <= server.body.items()
    assert server.body["model"] == "some-model"
    assert server.body["tools"][0]["function"]["name"] == "sum"
    assert server.body["response_format"]["type"] == "json_schema"


@installed
@pytest.mark.parametrize("steps", [(), (DONE,), (Cut(),)], ids=["closed", "DONE", "cut"])
async def test_without_a_finish_reason_it_is_an_interruption(steps: tuple[Any, ...]) -> None:
    """LiteLLM makes up a finish reason where a stream just stops; a caller never sees that one."""
    told = await tell(stream(say("half"), Wait(0.2), *steps))
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.answer.finish is None


@installed
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "STOP"),
        ("eos_token", "STOP"),
        ("max_output_tokens", "LENGTH"),
        ("tool_calls", "TOOL_CALLS"),
        ("sensitive", "CONTENT_FILTER"),
    ],
)
async def test_finish_reasons(word: str, reason: str) -> None:
    """What the upstream said of its answer's end counts, also where LiteLLM does not know it."""
    told = await tell(stream(say("well"), finish(word), DONE))
    assert pb.FinishReason.Name(told.finish.reason) == f"FINISH_REASON_{reason}"


@installed
@pytest.mark.parametrize("word", ["network_error", "timeout", "error", "something_new"])
async def test_a_finish_reason_that_proves_no_end_is_none(word: str) -> None:
    """LiteLLM calls every word that it does not know a stop; a caller never sees that one."""
    told = await tell(stream(say("half"), finish(word), DONE))
    assert told.error
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.answer.finish is None


@installed
async def test_a_count_that_came_too_early_is_not_of_the_answer() -> None:
    """The rest is estimated, and says so."""
    early = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}}
    words = [say(f"{number:05}") for number in range(300)]  # LiteLLM stops one that repeats itself
    told = await tell(stream(early, *words, finish(), DONE))
    assert told.finish.usage.estimated
    assert told.finish.usage.completion_tokens == 500


BEFORE: dict[str, tuple[Behaviour, str]] = {
    "401": (Status(401), "PROVIDER_CREDENTIALS"),
    "403": (Status(403), "PROVIDER_CREDENTIALS"),
    "404": (Status(404), "PROVIDER_MODEL_NOT_FOUND"),
    "429": (Status(429), "PROVIDER_RATE_LIMIT"),
    "500": (Status(500), "PROVIDER_UNAVAILABLE"),
    "502": (Status(502), "PROVIDER_UNAVAILABLE"),
    "503": (Status(503), "PROVIDER_UNAVAILABLE"),
    "too long": (
        Status(400, failure("This model's maximum context length is 5 tokens")),
        "CALLER_CONTEXT_LENGTH",
    ),
}


@installed
@pytest.mark.parametrize("how", BEFORE)
async def test_failures_have_our_names_and_are_not_retried(how: str) -> None:
    """A failure leads to the next candidate under its own class, after a single request."""
    behaviour, error_class = BEFORE[how]
    async with (
        upstream(behaviour) as first,
        upstream() as second,
        routed(profile(first, second, **PARTS)) as client,
    ):
        told = await ask(client)
    assert told.failures == [("first", error_class)]
    assert told.finish.model == "second"
    assert len(first.requests) == 1


@installed
async def test_what_an_upstream_asks_to_wait_is_heard() -> None:
    """Retry-After is not lost on its way through LiteLLM."""
    async with upstream(Status(429, headers={"retry-after": "7"})) as server:
        with pytest.raises(BackendError) as caught:
            await events_of("openai/some-model", server.url)
    assert caught.value.retry_after == 7


@installed
@pytest.mark.parametrize(
    ("model", "error_class"),
    [("anthropic/claude", "provider_credentials"), ("nonsense", "provider_model_not_found")],
)
async def test_what_litellm_cannot_ask(model: str, error_class: str) -> None:
    """A missing key and a provider that it does not know are told apart, and nothing is asked."""
    with pytest.raises(BackendError) as caught:
        await events_of(model)
    assert caught.value.error_class == error_class


@installed
async def test_a_key_stays_with_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a model's usual provider is not sent to an address that the profile names."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with upstream() as server:
        await events_of("openai/some-model", server.url)
    assert "sk-secret" not in str(dict(server.requests[0].headers))


@installed
async def test_nothing_is_logged_or_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the prompt nor what the upstream says of it appears in a log or on the terminal."""
    caplog.set_level(logging.DEBUG)
    behaviours = answer("tattle"), Status(400, failure("tattle")), Status(500, failure("tattle"))
    async with upstream(*behaviours) as server, routed(profile(server, **PARTS)) as client:
        for _ in behaviours:
            await ask(client, "sesame please")
    assert len(server.requests) == len(behaviours)
    printed = capfd.readouterr()
    everything = caplog.text + printed.out + printed.err
    assert "sesame" not in everything
    assert "tattle" not in everything


@installed
async def test_its_own_machinery_is_off() -> None:
    """LiteLLM neither calls back nor counts, caches, retries or drops what it does not know."""
    async with upstream() as server:
        await events_of("openai/some-model", server.url)
    litellm = importlib.import_module("litellm")
    off = (
        *(litellm.telemetry, litellm.drop_params, litellm.modify_params, litellm.cache),
        *(litellm.num_retries, litellm.callbacks, litellm.success_callback),
        litellm.failure_callback,
    )
    assert not any(off)
    assert litellm.turn_off_message_logging


@installed
async def test_a_caller_that_leaves_ends_the_call() -> None:
    """When the caller goes away in the middle of an answer, the upstream's connection is closed."""
    async with (
        upstream(stream(say("half"), Wait())) as server,
        routed(profile(server, **PARTS)) as client,
    ):
        async with client.complete("hello there", timeout=30) as told:
            async for _ in told:
                break
        await asyncio.wait_for(server.requests[0].left.wait(), GENEROUS)


@installed
def test_every_exception_of_litellm_has_a_class() -> None:
    """A new kind of failure does not go unnoticed; those that no completion raises have none."""
    exceptions = importlib.import_module("litellm.exceptions")
    known = {
        name
        for name, kind in vars(exceptions).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
        if any(base.__name__ in ERROR_CLASSES for base in kind.__mro__)
    }
    found = {
        name
        for name, kind in vars(exceptions).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    of_its_proxy = {
        "BlockedPiiEntityError",
        "GuardrailInterventionNormalStringError",
        "GuardrailRaisedException",
        "ModifyResponseException",
        "SensitiveDataRouteException",
    }
    of_its_prices = {"ModelNotMappedError"}
    assert found - known <= of_its_proxy | of_its_prices | {"OpenAIError"}
