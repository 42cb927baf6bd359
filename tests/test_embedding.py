"""Vectors by the model that a profile's row names, under the same rules as answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import web

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute.v1 import router_pb2_grpc
from semroute_service.ledger import Ledger
from semroute_service.testing import running_server
from sockets import serving
from upstream import GENEROUS, nobody, outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path


@dataclass
class Vectoriser:
    """An upstream that embeds: (length, 1) of each text, in reversed order unless told otherwise.

    ``answers`` are played in order before that, the last one for ever.
    """

    answers: tuple[Callable[[], web.StreamResponse], ...] = ()
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    async def models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": name} for name in self.listed]})

    async def embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        if self.answers:
            return self.answers[min(len(self.bodies), len(self.answers)) - 1]()
        rows = [
            {"index": i, "embedding": [3.0 * len(text), 4.0 * len(text)]}
            for i, text in enumerate(body["input"])
        ]
        tokens = sum(map(len, body["input"]))
        return web.json_response({"data": rows[::-1], "usage": {"prompt_tokens": tokens}})


def refusing(status: int) -> Callable[[], web.StreamResponse]:
    return lambda: web.json_response({"error": {"message": "INNER"}}, status=status)


def saying(body: Any) -> Callable[[], web.StreamResponse]:
    return lambda: web.json_response(body)


@contextlib.asynccontextmanager
async def vectoriser(*answers: Callable[[], web.StreamResponse]) -> AsyncIterator[Vectoriser]:
    made = Vectoriser(answers)
    app = web.Application()
    app.router.add_post("/v1/embeddings", made.embed)
    app.router.add_get("/v1/models", made.models)
    async with serving(app) as address:
        made.url = f"http://{address}/v1"
        yield made


def profile(*urls: str, row: Mapping[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """Embedding models first, second at these addresses, and a model that chats."""
    names = ["first", "second"][: len(urls)]
    backends = {
        name: {"provider": "vllm", "url": url} for name, url in zip(names, urls, strict=True)
    }
    models: dict[str, Any] = {
        name: {"backend": name, "id": f"{name}-id", "kind": "embedding"} for name in names
    }
    models["chat"] = {"provider": "echo", "id": "echo"}
    routes = {
        "default": {"model": "chat"},
        "embeddings": row or {"tiers": {"low": [*names, "chat"]}},
    }
    return {"backends": backends, "models": models, "routes": routes, **rest}


@contextlib.asynccontextmanager
async def routed(made: Mapping[str, Any], **settings: Any) -> AsyncIterator[Any]:
    """The stub of a server with this profile."""
    async with (
        running_server(profile=made, **settings) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield router_pb2_grpc.RouterServiceStub(channel)


async def test_the_rows_model_embeds() -> None:
    """Unit rows in the order of the texts, and who made them, for which tokens."""
    async with vectoriser() as server, routed(profile(server.url)) as stub:
        made = await stub.Embed(pb.EmbedRequest(texts=["a", "bb"]))
    assert [list(e.values) for e in made.embeddings] == [pytest.approx([0.6, 0.8])] * 2
    assert (made.model, made.backend, made.dimension) == ("first", "first", 2)
    assert made.usage.prompt_tokens == 3
    assert not made.usage.estimated
    assert [outcome(attempt) for attempt in made.attempts] == [("first", "OK")]
    assert server.bodies == [{"model": "first-id", "input": ["a", "bb"]}]


async def test_order_is_kept_over_several_requests() -> None:
    """More texts than one request holds come back in order, and their tokens are added up."""
    texts = ["x" * (i + 1) for i in range(70)]
    rows = {"data": [{"index": 0, "embedding": [1, 2]}]}
    async with vectoriser() as server, routed(profile(server.url)) as stub:
        made = await stub.Embed(pb.EmbedRequest(texts=texts))
        assert [len(body["input"]) for body in server.bodies] == [32, 32, 6]
        assert [text for body in server.bodies for text in body["input"]] == texts
        assert made.usage.prompt_tokens == sum(map(len, texts))
        server.answers = (saying(rows),)
        assert (await stub.Embed(pb.EmbedRequest(texts=["a"]))).usage.estimated


async def test_without_such_a_row_the_routers_own_encoder_embeds() -> None:
    """A row whose models only chat is no row for vectors."""
    made = profile(row={"model": "chat"})
    async with routed(made) as stub:
        answer = await stub.Embed(pb.EmbedRequest(texts=["a"]))
    assert (answer.backend, answer.dimension > 2) == ("", True)
    assert not answer.attempts


BAD = {
    "503": refusing(503),
    "401": refusing(401),
    "no JSON": lambda: web.Response(text="vectors"),
    "too few": saying({"data": []}),
    "an index twice": saying({"data": [{"index": 1, "embedding": [1]}] * 2}),
    "ragged": saying({"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}),
    "no numbers": saying({"data": [{"index": i, "embedding": ["a"]} for i in (0, 1)]}),
    "nothing": saying({"data": [{"index": i, "embedding": []} for i in (0, 1)]}),
    "zero": saying({"data": [{"index": i, "embedding": [0, 0]} for i in (0, 1)]}),
    "infinite": saying({"data": [{"index": i, "embedding": [1e39, 1]} for i in (0, 1)]}),
    "too large": saying({"data": [{"index": i, "embedding": [10**400]} for i in (0, 1)]}),
    "index too large": lambda: web.Response(text='{"data": [{"index": 1e999}]}'),
    "null": saying({"data": [{"index": i, "embedding": None} for i in (0, 1)]}),
}


@pytest.mark.parametrize("how", BAD)
async def test_the_next_model_embeds_where_one_fails(how: str) -> None:
    """Whatever the first one does wrong, nothing of it reaches the caller; the answer says who."""
    async with (
        vectoriser(BAD[how]) as first,
        vectoriser() as second,
        routed(profile(first.url, second.url)) as stub,
    ):
        made = await stub.Embed(pb.EmbedRequest(texts=["a", "bb"]))
    assert (made.model, len(made.embeddings)) == ("second", 2)
    assert [model for model, _ in map(outcome, made.attempts)] == ["first", "second"]
    assert outcome(made.attempts[0])[1].startswith("PROVIDER_")


@pytest.mark.parametrize("reroute", [False, True])
async def test_a_content_filter_is_no_malformed_request(reroute: bool) -> None:
    """It is told as what it is, and the next model is asked where the profile says so."""
    blocked = {"error": {"message": "INNER", "code": "content_filter"}}
    async with (
        vectoriser(lambda: web.json_response(blocked, status=400)) as first,
        vectoriser() as second,
        running_server(
            profile=profile(first.url, second.url, behavior={"reroute_filtered": reroute})
        ) as server,
        RouterClient(server.address) as client,
    ):
        if reroute:
            assert await client.embed(["a"])
        else:
            with pytest.raises(RouterError) as caught:
                await client.embed(["a"])
            assert caught.value.reason == "CONTENT_FILTERED"
    assert len(second.bodies) == reroute


async def test_a_caller_may_insist_on_a_model() -> None:
    """Then nobody else's vectors come, which could not be compared with older ones."""
    async with (
        vectoriser(refusing(503)) as first,
        vectoriser() as second,
        running_server(profile=profile(first.url, second.url)) as server,
        RouterClient(server.address) as client,
    ):
        assert await client.embed(["a"], model="second")
        with pytest.raises(RouterError) as caught:
            await client.embed(["a"], model="first")
        assert caught.value.reason == "BACKENDS_UNAVAILABLE"
        with pytest.raises(RouterError) as caught:
            await client.embed(["a"], model="none such")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
        with pytest.raises(RouterError) as caught:
            await client.embed(["a"], model="chat")
        assert caught.value.reason == "NO_COMPLIANT_MODEL"
    assert len(second.bodies) == 1


async def test_governance_holds_for_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that may not leave the building is not sent to a cloud to be embedded."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "canary")
    async with vectoriser(refusing(503)) as home, vectoriser() as cloud:
        made = profile(home.url, cloud.url, governance={"allow_cloud": True})
        made["backends"]["second"]["provider"] = "deepseek"
        async with running_server(profile=made) as server, RouterClient(server.address) as client:
            with pytest.raises(RouterError):
                await client.embed(["secret"], caller=pb.Caller(local_only=True))
            assert not cloud.bodies
            assert await client.embed(["public"])
    assert cloud.keys == ["Bearer canary"]
    assert home.keys == [""] * len(home.keys)


async def test_vectors_are_paid_for(tmp_path: Path) -> None:
    """What the tokens cost is in the answer and, soon after, in the ledger."""
    async with vectoriser() as server:
        made = profile(server.url)
        made["models"]["first"]["price"] = {"input": 2, "output": 0}
        async with routed(made, home=tmp_path) as stub:
            answer = await stub.Embed(pb.EmbedRequest(texts=["four"]))
            assert answer.cost_nano_usd == 4 * 2_000
            ledger = Ledger(tmp_path / "ledger.sqlite3")
            with contextlib.closing(ledger):
                async with asyncio.timeout(GENEROUS):
                    while ledger.spent("test") != answer.cost_nano_usd:
                        await asyncio.sleep(0.02)


def paid(tokens: Any, count: int = 32) -> Callable[[], web.StreamResponse]:
    """A whole batch of vectors for this many tokens."""
    rows = [{"index": i, "embedding": [1.0, 2.0]} for i in range(count)]
    return saying({"data": rows, "usage": {"prompt_tokens": tokens}})


TWO_BATCHES = pb.EmbedRequest(texts=["t"] * 64)


def priced(*urls: str, **behavior: Any) -> dict[str, Any]:
    """A nano-USD for a thousandth of a token by the first model; the second one is free."""
    made = profile(*urls, behavior=behavior)
    made["models"]["first"]["price"] = {"input": 1, "output": 1}
    return made


async def booked(home: Path, amount: int) -> None:
    """Wait for the ledger to hold this much."""
    with contextlib.closing(Ledger(home / "ledger.sqlite3")) as ledger:
        async with asyncio.timeout(GENEROUS):
            while ledger.spent("test") != amount:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_paid_before_a_refusal_is_booked(status: int, tmp_path: Path) -> None:
    """Where the second batch is refused, and the next model embeds, the first batch is no gift."""
    async with (
        vectoriser(paid(5_000), refusing(status)) as first,
        vectoriser() as second,
        routed(priced(first.url, second.url, max_retries=0), home=tmp_path) as stub,
    ):
        made = await stub.Embed(TWO_BATCHES)
        await booked(tmp_path, 5_000_000)
    failed, _ = made.attempts
    assert failed.usage == pb.Usage(prompt_tokens=5_000)
    assert made.cost_nano_usd == failed.cost_nano_usd == 5_000_000
    assert [len(body["input"]) for body in second.bodies] == [32, 32]


async def test_what_was_paid_before_a_final_refusal_is_booked(tmp_path: Path) -> None:
    """A malformed second batch ends the call, and the first one is settled all the same."""
    async with (
        vectoriser(paid(5_000), refusing(400)) as server,
        routed(priced(server.url), home=tmp_path) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Embed(TWO_BATCHES)
        await booked(tmp_path, 5_000_000)


async def test_what_was_paid_before_rubbish_is_booked(tmp_path: Path) -> None:
    """What is known to be used is the least of it, where the rest may be charged as well."""
    answers = [paid(5_000), lambda: web.Response(text="no vectors")]
    async with (
        vectoriser(*answers) as first,
        vectoriser() as second,
        routed(priced(first.url, second.url, max_retries=0), home=tmp_path) as stub,
    ):
        made = await stub.Embed(TWO_BATCHES)
    assert made.attempts[0].usage == pb.Usage(prompt_tokens=5_000, estimated=True)


async def test_a_retry_asks_for_what_is_missing(tmp_path: Path) -> None:
    """The batches that have come are not paid for again, and all vectors are in order."""
    answers = (paid(5_000), refusing(503), paid(70))
    async with (
        vectoriser(*answers) as server,
        routed(priced(server.url, max_retries=1), home=tmp_path) as stub,
    ):
        made = await stub.Embed(TWO_BATCHES)
        await booked(tmp_path, 5_070_000)
    assert len(server.bodies) == 3
    assert len(made.embeddings) == 64
    assert [attempt.usage.prompt_tokens for attempt in made.attempts] == [5_000, 70]
    assert made.cost_nano_usd == 5_070_000


async def test_of_a_model_that_may_change_all_is_asked_again() -> None:
    """Vectors of two models are never mixed where the backend itself says which one it serves."""
    batch = paid(10)
    async with vectoriser(batch, refusing(503), batch, batch) as server:
        made = priced(server.url, max_retries=1)
        del made["models"]["first"]["id"]
        server.listed = ["served"]
        async with routed(made) as stub:
            assert len((await stub.Embed(TWO_BATCHES)).embeddings) == 64
    assert [body["model"] for body in server.bodies] == ["served"] * 4


async def test_a_dimension_that_changes_is_a_failure() -> None:
    """Rows that cannot be compared are no answer."""
    wide = {"data": [{"index": i, "embedding": [1.0, 2.0, 3.0]} for i in range(32)]}
    async with (
        vectoriser(paid(1), saying(wide)) as first,
        vectoriser() as second,
        routed(profile(first.url, second.url)) as stub,
    ):
        made = await stub.Embed(TWO_BATCHES)
    assert made.model == "second"
    assert outcome(made.attempts[0]) == ("first", "PROVIDER_PROTOCOL")


ABSURD: list[Any] = [10**20, 2**62, 2**31, 1e300, True, -1, "7", [], {}, 0, None]


@pytest.mark.parametrize("tokens", ABSURD, ids=repr)
async def test_usage_that_cannot_be_true_is_estimated(tokens: Any, tmp_path: Path) -> None:
    """A senseless figure becomes an estimate that says so, is paid, and spoils nothing."""
    async with (
        vectoriser(paid(tokens, 1)) as server,
        routed(priced(server.url), home=tmp_path) as stub,
    ):
        made = await stub.Embed(pb.EmbedRequest(texts=["four"]))
        await booked(tmp_path, 5_000)
    assert made.usage == pb.Usage(prompt_tokens=5, estimated=True)
    assert [outcome(attempt) for attempt in made.attempts] == [("first", "OK")]


async def test_figures_that_are_too_much_together_are_bounded(tmp_path: Path) -> None:
    """The sum fits the wire and the ledger wherever each figure does."""
    most = 2**31 - 1
    async with (
        vectoriser(paid(most)) as server,
        routed(priced(server.url), home=tmp_path) as stub,
    ):
        made = await stub.Embed(TWO_BATCHES)
        await booked(tmp_path, most * 1_000)
    assert made.usage == pb.Usage(prompt_tokens=most)


async def test_vectors_too_dear_are_denied() -> None:
    """The limit of a request holds for its texts, which cost nothing to write but to read."""
    async with vectoriser() as server:
        made = profile(server.url, cost={"max_per_request": 0.0001})
        made["models"]["first"]["price"] = {"input": 1, "output": 1}
        async with running_server(profile=made) as running, RouterClient(running.address) as client:
            assert await client.embed(["short"])
            with pytest.raises(RouterError) as caught:
                await client.embed(["long" * 2_000])
    assert caught.value.reason == "NO_COMPLIANT_MODEL"
    assert len(server.bodies) == 1


async def test_nobody_there() -> None:
    """Where no model answers the caller hears so, and the own encoder does not stand in."""
    async with (
        running_server(profile=profile(nobody())) as server,
        RouterClient(server.address) as client,
    ):
        with pytest.raises(RouterError) as caught:
            await client.embed(["a"])
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert "INNER" not in str(caught.value)
