"""LitServe's OpenAI endpoint, as it comes, behind the router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from servers.serving import HERE, free_port, served, until_hung_up
from upstream import answer, ask, profile, routed, upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAID = "one two three four five six"


@pytest.fixture(scope="module")
def url(
    installed: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base URL of a running echo."""
    python, port = installed("litserve") / "python", free_port()
    log = tmp_path_factory.mktemp("litserve") / "log"
    with served([python, HERE / "litserve_echo.py", str(port)], port, log) as url:
        yield url


def to(url: str, model: str, *others: Any) -> dict[str, Any]:
    """A profile in which ``model`` answers there, and the ``others`` stand behind it."""
    compatible = {"first": {"provider": "openai_compatible"}}
    return profile(url, *others, backends=compatible, models={"first": {"id": model}})


async def test_an_answer_comes_whole(url: str) -> None:
    """Every piece, the finish reason and the usage arrive as LitServe sent them."""
    async with routed(to(url, "echo")) as client:
        told = await ask(client, SAID)
    assert told.text == SAID + " "
    assert told.finish.reason == pb.FINISH_REASON_STOP
    assert told.finish.usage == pb.Usage(prompt_tokens=6, completion_tokens=6)


async def test_usage_that_the_model_does_not_count_is_estimated(url: str) -> None:
    """LitServe reports zeros for a model that counts nothing; they are not believed."""
    async with routed(to(url, "uncounted")) as client:
        told = await ask(client, SAID)
    assert told.finish.usage.estimated
    assert told.finish.usage.completion_tokens > 0


async def test_a_limited_answer_is_short(url: str) -> None:
    """The limit reaches the model. LitServe ends every stream with ``stop``, also a cut one, so
    that is what the caller is told."""
    async with routed(to(url, "echo")) as client:
        told = await ask(client, SAID, sampling=pb.Sampling(max_tokens=2))
    assert told.text == "one two "
    assert told.finish.reason == pb.FINISH_REASON_STOP
    assert told.finish.usage.completion_tokens == 2


async def test_any_model_is_known_there(url: str) -> None:
    """LitServe serves one model, whatever it is called: there is no unknown one to refuse."""
    async with routed(to(url, "no/such-model")) as client:
        told = await ask(client, SAID)
    assert told.text == SAID + " "
    assert told.failures == []


async def test_a_tool_is_called(url: str) -> None:
    """Tools reach the model, and its call comes back with name and arguments."""
    tool = pb.Tool(name="echo", description="says it again", parameters_schema='{"type": "object"}')
    capable = {"first": {"id": "echo", "capabilities": ["tools"]}}
    async with routed(profile(url, models=capable)) as client:
        told = await ask(client, "hello", tools=[tool])
    (call,) = [call for delta in told.deltas for call in delta.tool_calls]
    assert (call.name, call.arguments) == ("echo", '{"said": "hello"}')


async def test_a_model_that_breaks_is_never_a_whole_answer(url: str) -> None:
    """LitServe tells a failure inside the stream, in an event it does not end: the caller is told
    that the answer broke off."""
    async with routed(to(url, "broken")) as client:
        told = await ask(client, SAID)
    assert told.error is not None
    assert told.error.reason == "STREAM_INTERRUPTED"
    assert told.answer.finish is None


async def test_who_leaves_is_hung_up_on(url: str) -> None:
    """A caller that leaves in the middle closes the connection to LitServe."""
    async with routed(to(url, "slow")) as client:
        async with client.complete(SAID * 9) as leaving:
            async for _ in leaving:
                break
        await until_hung_up(int(url.rsplit(":", 1)[1].partition("/")[0]))


async def test_a_server_without_a_list_comes_first(url: str) -> None:
    """LitServe lists no models: that is no reason to ask another."""
    async with upstream(answer("well")) as other, routed(to(url, "echo", other)) as client:
        told = await ask(client, SAID)
    assert told.finish.model == "first"


async def test_a_model_without_an_id_is_not_found_there(url: str) -> None:
    """Without a list nothing says what a model without an id should be, and the next answers."""
    async with upstream(answer("well")) as other, routed(to(url, "", other)) as client:
        told = await ask(client)
    assert (told.text, told.finish.model) == ("well", "second")
