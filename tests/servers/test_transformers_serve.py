"""``transformers serve`` with a tiny, untrained model behind the router."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from semroute.v1 import router_pb2 as pb
from semroute_classifier.encoders.sentence_transformer import bundled_folder
from servers.serving import HERE, START_SECONDS, free_port, served, until_hung_up
from upstream import answer, ask, profile, routed, upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Model:
    """What is served, and where."""

    id: str
    url: str
    port: int


@pytest.fixture(scope="module")
def tiny(
    installed: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    programs, folder = installed("transformers"), tmp_path_factory.mktemp("transformers")
    model, port = folder / "model", free_port()
    making = [programs / "python", HERE / "tiny_chat_model.py", model, bundled_folder()]
    subprocess.run(making, check=True, capture_output=True, timeout=START_SECONDS)
    command: list[str | Path] = [programs / "transformers", "serve", model, "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    cache = folder / "cache"
    cache.mkdir()  # without the folder its list of models is an error
    env = {"HF_HUB_CACHE": str(cache)}
    with served(command, port, folder / "log", env=env) as url:
        yield Model(str(model), url, port)


def to(tiny: Model, *others: Any, **model: Any) -> Mapping[str, Any]:
    """A profile in which the tiny model answers, or what ``model`` says of it."""
    compatible = {"first": {"provider": "openai_compatible"}}
    own = {"first": {"id": tiny.id, **model}}
    return profile(tiny.url, *others, backends=compatible, models=own)


async def test_an_answer_comes_whole(tiny: Model) -> None:
    """Text, finish reason and usage arrive as the server sent them, and the limit is told."""
    async with routed(to(tiny)) as client:
        told = await ask(client, sampling=pb.Sampling(max_tokens=8))
    assert told.text, told
    assert told.finish.reason == pb.FINISH_REASON_LENGTH
    usage = told.finish.usage
    assert usage.completion_tokens == 8
    assert usage.prompt_tokens > 0
    assert not usage.estimated


async def test_the_same_is_answered_twice(tiny: Model) -> None:
    """Without chance in it an answer is the same again, so nothing of it is lost on the way."""
    sampling = pb.Sampling(max_tokens=32, temperature=0.0)
    async with routed(to(tiny)) as client:
        first, second = [await ask(client, sampling=sampling) for _ in range(2)]
    assert first.text == second.text
    assert len(first.text.split()) > 1


async def test_a_model_that_the_server_does_not_have(tiny: Model) -> None:
    """A server that was started with one model answers 400 to the name of another; that is no
    fault of the caller's, and the next candidate answers."""
    async with (
        upstream(answer("well")) as other,
        routed(to(tiny, other, id="no/such-model")) as client,
    ):
        told = await ask(client)
    assert told.failures == [("first", "PROVIDER_MODEL_NOT_FOUND")]
    assert told.text == "well"
    assert tiny.id not in told.everything


async def test_who_leaves_is_hung_up_on(tiny: Model) -> None:
    """A caller that leaves in the middle closes the connection to the server."""
    async with routed(to(tiny)) as client:
        async with client.complete("hello", sampling=pb.Sampling(max_tokens=8000)) as leaving:
            async for _ in leaving:
                break
        await until_hung_up(tiny.port)


async def test_a_server_that_does_not_list_what_it_serves_comes_first(tiny: Model) -> None:
    """It lists what lies in its cache, not the model it was started with: that is no reason to ask
    another."""
    sampling = pb.Sampling(max_tokens=4)
    async with upstream(answer("well")) as other, routed(to(tiny, other)) as client:
        told = await ask(client, sampling=sampling)
    assert told.finish.model == "first"


async def test_a_model_without_an_id_is_not_found_there(tiny: Model) -> None:
    """Its list being empty, nothing says what a model without an id should be."""
    async with routed(to(tiny, id="")) as client:
        told = await ask(client)
    assert told.failures == [("first", "PROVIDER_MODEL_NOT_FOUND")]


async def test_tools_may_be_offered(tiny: Model) -> None:
    """A model that cannot call tools answers with text where some are offered."""
    tool = pb.Tool(name="sum", description="Adds.", parameters_schema='{"type": "object"}')
    async with routed(to(tiny, capabilities=["tools"])) as client:
        told = await ask(client, tools=[tool], sampling=pb.Sampling(max_tokens=4))
    assert told.text, told
    assert told.finish.reason == pb.FINISH_REASON_LENGTH
