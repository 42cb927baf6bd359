"""LiteLLM's proxy as an upstream, with an upstream of its own behind it that behaves as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from servers.serving import free_port, served, until_hung_up
from upstream import (
    DONE,
    GENEROUS,
    Behaviour,
    Cut,
    Status,
    Upstream,
    Wait,
    answer,
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
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from semroute import RouterClient

MODELS = ("plain", "limited", "broken", "long", "cut")
"""One for each that is made to fail: LiteLLM leaves a model alone for a while that has failed."""
TOO_LONG = "This model's maximum context length is 128 tokens. However, you requested 4096 tokens."


@dataclass(frozen=True)
class Proxy:
    """A running proxy, its key, and the port at which it looks for its upstream."""

    url: str
    port: int
    behind: int
    key: str


@pytest.fixture(scope="module")
def proxy(
    installed: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    programs, folder = installed("litellm"), tmp_path_factory.mktemp("litellm")
    port, behind = free_port(), free_port()
    config = folder / "config.yaml"
    config.write_text(json.dumps(_config(behind)), encoding="utf-8")
    command: list[str | Path] = [programs / "litellm", "--config", config]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    key = f"sk-{secrets.token_hex(16)}"  # without one it does not start
    env = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # nothing is fetched
    with served(command, port, folder / "log", "/health/liveliness", env) as url:
        yield Proxy(url, port, behind, key)


@pytest.fixture(autouse=True)
def _key(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", proxy.key)


def _config(behind: int) -> dict[str, Any]:
    """JSON is YAML. Nothing is tried again there, so that what is asked is asked once."""
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": f"http://127.0.0.1:{behind}/v1",
                    "api_key": "none",
                },
            }
            for name in MODELS
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0},
    }


@contextlib.asynccontextmanager
async def asking(
    proxy: Proxy, model: str, *behaviours: Behaviour, other: bool = False
) -> AsyncIterator[tuple[RouterClient, Upstream]]:
    """A client whose router asks the proxy for ``model``, and what is behind the proxy. With
    ``other`` an upstream that answers well stands behind the proxy's model."""
    compatible = {"first": {"provider": "openai_compatible"}}
    ids = {"first": {"id": model, "capabilities": ["tools"]}}
    async with contextlib.AsyncExitStack() as stack:
        behind = await stack.enter_async_context(upstream(*behaviours, port=proxy.behind))
        others = [await stack.enter_async_context(upstream(answer("well")))] if other else []
        told = profile(
            proxy.url,
            *others,
            backends=compatible,
            models=ids,
            behavior={"max_retries": 0},
        )
        yield await stack.enter_async_context(routed(told)), behind


async def test_an_answer_comes_whole(proxy: Proxy) -> None:
    """Text, finish reason and usage pass two routers; what was asked reaches the upstream."""
    parts = [say(f"{word} ") for word in ("one", "two", "three")]
    counted = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}
    whole = stream(*parts, finish(), counted, DONE)
    async with asking(proxy, "plain", whole) as (client, behind):
        told = await ask(client, "hello there")
        assert behind.body["messages"] == [{"role": "user", "content": "hello there"}]
    assert told.text == "one two three "
    assert told.finish.reason == pb.FINISH_REASON_STOP
    usage = told.finish.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (11, 3)
    assert not usage.estimated


async def test_a_wrong_key_is_no_answer(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy without a database answers 400 to a key that it does not know, and says that it has
    no database. It is known to be not well by then, so that another is asked first."""
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-wrong")
    async with asking(proxy, "plain", answer(), other=True) as (client, behind):
        told = await ask(client)
        assert not behind.requests
    assert (told.text, told.finish.model) == ("well", "second")


async def test_a_limit_is_told_as_such(proxy: Proxy) -> None:
    """The limit reaches the upstream, and its finish reason the caller."""
    short = stream(say("one"), finish("length"), DONE)
    async with asking(proxy, "plain", short) as (client, behind):
        told = await ask(client, sampling=pb.Sampling(max_tokens=1))
        assert behind.body["max_tokens"] == 1
    assert told.finish.reason == pb.FINISH_REASON_LENGTH


async def test_tools_pass(proxy: Proxy) -> None:
    """A tool reaches the upstream, and the pieces of its call come back as one call."""
    begun = {"name": "sum", "arguments": '{"x"'}
    first = {"index": 0, "id": "a", "type": "function", "function": begun}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    called = stream(say(tool_calls=[first]), say(tool_calls=[rest]), finish("tool_calls"), DONE)
    tool = pb.Tool(name="sum", description="Adds.", parameters_schema='{"type": "object"}')
    async with asking(proxy, "plain", called) as (client, behind):
        told = await ask(client, tools=[tool])
        assert behind.body["tools"][0]["function"]["name"] == "sum"
    calls = [call for delta in told.deltas for call in delta.tool_calls]
    assert [(c.id, c.name) for c in calls if c.id] == [("a", "sum")]
    assert "".join(c.arguments for c in calls) == '{"x": 1}'
    assert told.finish.reason == pb.FINISH_REASON_TOOL_CALLS


FAILURES: Mapping[str, tuple[Behaviour, str]] = {
    "limited": (Status(429, failure("slow down")), "PROVIDER_RATE_LIMIT"),
    "broken": (Status(500, failure("boom")), "PROVIDER_UNAVAILABLE"),
    "long": (
        Status(400, failure(TOO_LONG, code="context_length_exceeded")),
        "CALLER_CONTEXT_LENGTH",
    ),
}


@pytest.mark.parametrize("model", FAILURES)
async def test_what_fails_behind_the_proxy_falls_back(proxy: Proxy, model: str) -> None:
    """In the proxy's words for it a failure is still known for what it is, and the next answers."""
    behaviour, error_class = FAILURES[model]
    async with asking(proxy, model, behaviour, other=True) as (client, behind):
        told = await ask(client)
        assert len(behind.requests) == 1
    assert told.failures == [("first", error_class)]
    assert (told.text, outcome(told.finish.attempts[-1])) == ("well", ("second", "OK"))


async def test_an_answer_that_breaks_off_behind_the_proxy(proxy: Proxy) -> None:
    """A stream that breaks behind the proxy is never told as whole."""
    broken = stream(say("half"), Wait(0.3), Cut())
    async with asking(proxy, "cut", broken) as (client, _):
        told = await ask(client)
    assert told.answer.finish is None
    assert told.error is not None
    assert told.error.reason == "STREAM_INTERRUPTED"


async def test_a_model_that_the_proxy_does_not_know(proxy: Proxy) -> None:
    """The proxy says so, and nothing of its message reaches the caller."""
    async with asking(proxy, "no-such-model", answer()) as (client, behind):
        told = await ask(client)
        assert not behind.requests
    assert told.failures == [("first", "PROVIDER_MODEL_NOT_FOUND")]
    assert "Invalid model" not in told.everything


async def test_an_unknown_model_falls_back(proxy: Proxy) -> None:
    """Where another model stands behind it, that one answers."""
    async with asking(proxy, "no-such-model", answer(), other=True) as (client, _):
        told = await ask(client)
    assert (told.text, told.finish.model) == ("well", "second")


async def test_who_leaves_is_hung_up_on(proxy: Proxy) -> None:
    """A caller that leaves closes the connection to the proxy, which then hangs up, too."""
    async with asking(proxy, "plain", stream(say("half"), Wait())) as (client, behind):
        async with client.complete("hello there") as leaving:
            async for _ in leaving:
                break
        await until_hung_up(proxy.port)
        (request,) = behind.requests
        async with asyncio.timeout(GENEROUS):
            await request.left.wait()


async def test_a_model_without_an_id_is_the_first_that_the_proxy_lists(proxy: Proxy) -> None:
    """The proxy's list of models is read."""
    async with asking(proxy, "", answer("well")) as (client, behind):
        told = await ask(client)
        assert behind.body["model"] in MODELS
    assert told.text == "well"
