"""What each provider wants and sends, and what the backend makes of it.

``contracts/<provider>.yaml`` holds it as data: what its documentation says and what it was seen to
send, shortened. One server on loopback plays them all, at the path of the provider's own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends import BackendError, BackendPool, ChatRequest, End
from semroute_service.backends.openai_stream import StreamReader
from semroute_service.decision import Delta, Usage
from semroute_service.profile import load_profiles, load_providers
from semroute_service.profile.addresses import address_of
from semroute_service.query import Message, Options, Role, Sampling
from semroute_service.testing import write_files
from sockets import serving
from upstream import GENEROUS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from semroute_service.profile import Model, Provider

FOLDER = Path(__file__).with_name("contracts")
CONTRACTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))
}
OVER_HTTP = ("openai_chat", "anthropic_messages")
KEY = "canary-key"
MESSAGES = (Message(Role.SYSTEM, ("Be brief.",)), Message(Role.USER, ("Hello there",)))
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=50, stop=("END",), seed=7)
USUAL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello there"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 50,
    "stop": ["END"],
    "seed": 7,
}
"""What a provider without any dialect is asked; a contract says what differs, null is absent."""


@dataclass
class Played:
    """The one server: how it answers next, and what it was asked last."""

    address: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    asked: web.Request | None = None
    told: Any = None

    def plays(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        self.body = (body if isinstance(body, str) else json.dumps(body)).encode()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked, self.told = request, await request.json()
        return web.Response(status=self.status, headers=self.headers, body=self.body)


@contextlib.asynccontextmanager
async def playing() -> AsyncIterator[Played]:
    played = Played()
    app = web.Application()
    app.router.add_post("/{path:.*}", played.answer)
    async with serving(app) as address:
        played.address = f"http://{address}"
        yield played


def contract_of(provider: str) -> dict[str, Any]:
    assert provider in CONTRACTS, f"tests/contracts/{provider}.yaml is missing"
    return CONTRACTS[provider]


def environment_of(provider: Provider, contract: dict[str, Any]) -> dict[str, str]:
    """Every secret of the provider as a canary that can be told apart."""
    secrets = {name: f"canary-{name}" for name in provider.secret_headers.values()}
    keys = dict.fromkeys(provider.key_env[:1], KEY)
    return {**secrets, **keys, **contract.get("environment", {})}


def model_of(
    provider: Provider, contract: dict[str, Any], played: Played, folder: Path, model: str
) -> Model:
    """The provider's model, with its own address in all but the host."""
    environment = environment_of(provider, contract)
    path = urlsplit(address_of(provider, environment)[0]).path or "/v1"
    profile = {
        "backends": {"it": {"provider": provider.id, "url": played.address + path}},
        "models": {"it": {"backend": "it", "id": model}},
        "routes": {"default": {"model": "it"}},
        "governance": {"allow_cloud": True},
    }
    write_files(folder, {"it": profile})
    return load_profiles(folder, environment=environment)["it"].models["it"]


@dataclass
class Made:
    """What the backend made of an answer."""

    deltas: list[Delta] = field(default_factory=list)
    end: End | None = None
    error: BackendError | None = None

    def summary(self) -> dict[str, Any]:
        calls: dict[int, list[str]] = {}
        for piece in (piece for delta in self.deltas for piece in delta.tool_calls):
            call = calls.setdefault(piece.index, ["", "", ""])
            for at, text in enumerate((piece.id, piece.name, piece.arguments)):
                call[at] += text
        assert list(calls) == list(range(len(calls)))
        return {
            "text": "".join(delta.text for delta in self.deltas),
            "reasoning": "".join(delta.reasoning for delta in self.deltas),
            "calls": list(calls.values()),
            "finish": self.end.reason.value if self.end else None,
            "usage": self.end.usage if self.end else None,
            "error": self.error.error_class.value if self.error else None,
        }


def expected(answer: Mapping[str, Any]) -> dict[str, Any]:
    usage = answer.get("usage")
    return {
        "text": answer.get("text", ""),
        "reasoning": answer.get("reasoning", ""),
        "calls": answer.get("calls", []),
        "finish": answer.get("finish"),
        "usage": Usage(**{f"{name}_tokens": n for name, n in usage.items()}) if usage else None,
        "error": answer.get("error"),
    }


async def make(pool: BackendPool, model: Model, contract: Mapping[str, Any]) -> Made:
    made = Made()
    options = Options(replace(SAMPLING, **contract.get("unset", {})))
    try:
        async with (
            asyncio.timeout(GENEROUS),
            contextlib.aclosing(pool.stream(ChatRequest(model, MESSAGES, options))) as stream,
        ):
            async for event in stream:
                if isinstance(event, End):
                    made.end = event
                elif isinstance(event, Delta):
                    made.deltas.append(event)
    except BackendError as error:
        made.error = error
    return made


@contextlib.asynccontextmanager
async def met(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, model: str = ""
) -> AsyncIterator[tuple[dict[str, Any], Played, BackendPool, Model]]:
    provider, contract = load_providers()[name], contract_of(name)
    for variable, value in environment_of(provider, contract).items():
        monkeypatch.setenv(variable, value)
    pool = BackendPool()
    async with playing() as played:
        wanted = model or contract.get("model", "m")
        try:
            yield contract, played, pool, model_of(provider, contract, played, folder, wanted)
        finally:
            await pool.close()


def test_every_provider_over_http_has_a_contract() -> None:
    """A provider that is added to the catalogue is added here, and none is left behind."""
    wanted = {name for name, p in load_providers().items() if p.protocol in OVER_HTTP}
    assert set(CONTRACTS) == wanted


@pytest.mark.parametrize("name", CONTRACTS)
async def test_what_is_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes to the provider's path, with its names and without what it refuses; each
    secret stands in its own header and nowhere else."""
    contract = contract_of(name)
    variants = [{"sent": contract.get("sent", {})}, *contract.get("variants", [])]
    for variant in variants:
        async with met(name, tmp_path, monkeypatch, variant.get("model", "")) as parts:
            _, played, pool, model = parts
            played.plays(200, "", {"content-type": "text/event-stream"})
            await make(pool, model, contract)
            asked = played.asked
            assert asked is not None
            body = {**USUAL, "model": model.id, **variant["sent"]}
            body = contract.get("body", {k: v for k, v in body.items() if v is not None})
            assert played.told == body
            assert asked.raw_path == contract["path"]
            headers = {"authorization": f"Bearer {KEY}", **contract.get("headers", {})}
            for header, value in headers.items():
                assert asked.headers.get(header) == value, header
            carriers = {h.lower() for h, v in asked.headers.items() if "canary" in v}
            assert carriers == {h for h, v in headers.items() if v and "canary" in v}


@pytest.mark.parametrize("name", CONTRACTS)
async def test_what_is_made_of_its_streams(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, reasoning, tool calls, the end, the usage and errors inside come out the same from
    every dialect."""
    async with met(name, tmp_path, monkeypatch) as (contract, played, pool, model):
        for stream in contract["streams"]:
            played.plays(200, stream["text"], {"content-type": "text/event-stream"})
            made = await make(pool, model, contract)
            assert made.summary() == expected(stream["answer"]), stream["of"]


@pytest.mark.parametrize("name", CONTRACTS)
async def test_what_is_made_of_its_errors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal is called what it is, with the time that it asks for, and tells nothing."""
    async with met(name, tmp_path, monkeypatch) as (contract, played, pool, model):
        for error in contract["errors"]:
            played.plays(error["status"], error["body"], error.get("headers"))
            made = await make(pool, model, contract)
            assert made.error is not None
            found = (made.error.error_class.value, made.error.retry_after)
            wait = error.get("retry_after")
            assert found == (error["class"], wait and pytest.approx(wait)), error
            assert KEY not in made.error.detail
            assert str(error["body"]) == "" or str(error["body"]) not in made.error.detail


STREAMS = [
    (name, stream["text"].encode())
    for name, contract in CONTRACTS.items()
    if name != "anthropic"
    for stream in contract["streams"]
]


def read(*pieces: bytes) -> tuple[Any, ...]:
    """What a reader makes of a stream in these pieces."""
    reader, made = StreamReader(load_providers()["together"].finish_reasons), Made()
    for piece in pieces:
        made.deltas += reader.feed(piece)
    made.deltas += reader.close()
    made.error = reader.failure
    return made.summary(), reader.finish, reader.usage


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STREAMS), st.data())
def test_any_splitting_of_any_dialect_reads_the_same(
    stream: tuple[str, bytes], data: st.DataObject
) -> None:
    """Where the network cuts a stream changes neither its deltas nor its end nor its usage, and
    neither does how its lines end."""
    _, raw = stream
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    whole = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + raw.replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*pieces) == read(raw)
