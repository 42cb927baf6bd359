"""The encoder behind a server: what it asks, what it believes, and how it fails."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from embedding_server import (
    DIMENSION,
    Broken,
    Changed,
    Slow,
    Status,
    embedding_server,
)
from semroute import RouterClient
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import (
    EncoderError,
    EncoderUnavailableError,
    HashingEncoder,
    RemoteEncoder,
    RemoteModel,
    load_encoder,
)
from semroute_classifier.utterances import load_utterances
from semroute_service.testing import UTTERANCES, running_server, write_files
from upstream import nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from embedding_server import Behaviour, EmbeddingServer
    from semroute_classifier.encoders import Vectors

TEXTS = ["write a Python script", "which variants are in this VCF", "hi", "写一个函数", "🧬"]
SECRET = "Patient 4711 has a BRCA1 variant"
KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@contextlib.contextmanager
def connected(server: EmbeddingServer | str, **options: Any) -> Iterator[RemoteEncoder]:
    """A loaded encoder, with nothing noted of what its load asked."""
    url, model = (server, "hash-64") if isinstance(server, str) else (server.url, server.model)
    encoder = RemoteEncoder("remote", url, model, **options)
    if not isinstance(server, str):
        server.requests.clear()
    with contextlib.closing(encoder):
        yield encoder


def port_of(server: EmbeddingServer) -> int:
    port = urlsplit(server.url).port
    assert port
    return port


@pytest.mark.parametrize("as_base64", [True, False])
def test_the_vectors_are_the_servers_scaled_to_length_one(as_base64: bool) -> None:
    """Base64 is asked for, and numbers are read as well."""
    with embedding_server(as_base64=as_base64) as server, connected(server) as encoder:
        rows = encoder.encode(TEXTS)
        assert (encoder.name, encoder.dimension, encoder.width) == ("remote", DIMENSION, DIMENSION)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, HashingEncoder(DIMENSION).encode(TEXTS), atol=1e-6)
        assert server.requests[0].body["encoding_format"] == "base64"


def test_no_text_is_no_request(server: EmbeddingServer) -> None:
    with connected(server) as encoder:
        assert encoder.encode([]).shape == (0, DIMENSION)
        assert not server.requests


@pytest.mark.parametrize("count", [1, 6, 7, 8, 14, 15])
def test_any_number_of_texts_comes_in_order_in_small_requests(
    server: EmbeddingServer, count: int
) -> None:
    texts = [f"text number {i} of many" for i in range(count)]
    with connected(server, batch=7) as encoder:
        rows = encoder.encode(texts)
    np.testing.assert_allclose(rows, HashingEncoder(DIMENSION).encode(texts), atol=1e-6)
    assert len(server.inputs) == math.ceil(count / 7)
    assert max(map(len, server.inputs)) <= 7


def test_the_index_orders_the_answer_and_not_its_place(server: EmbeddingServer) -> None:
    with connected(server) as encoder:
        server.then(Changed(lambda answer: answer | {"data": answer["data"][::-1]}))
        rows = encoder.encode(TEXTS)
    np.testing.assert_allclose(rows, HashingEncoder(DIMENSION).encode(TEXTS), atol=1e-6)


def test_what_servers_refuse_is_made_sendable(server: EmbeddingServer) -> None:
    """Nothing becomes a dot, and half a surrogate pair becomes a question mark."""
    with connected(server) as encoder:
        assert np.isfinite(encoder.encode(["", " \n", "half \ud800 a pair", "a\x00b"])).all()
        assert server.inputs[0][:4] == [".", ".", "half ? a pair", "a\x00b"]


def test_the_key_is_read_at_each_request_and_sent_as_bearer(server: EmbeddingServer) -> None:
    keys = iter(["", "", "first", "second\n"])
    with connected(server, key=lambda: next(keys)) as encoder:
        encoder.encode(TEXTS)
        encoder.encode(TEXTS)
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == ["Bearer first", "Bearer second"]


def test_a_key_that_no_header_can_carry_is_refused_without_being_told(
    server: EmbeddingServer,
) -> None:
    with pytest.raises(EncoderError, match="no header can carry it") as caught:
        RemoteEncoder("remote", server.url, server.model, lambda: "schlüssel\x01")
    assert "schl" not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize(
    "behaviour",
    [
        Status(500),
        Status(503),
        Status(507),
        Status(429),
        Status(429, {"Retry-After": "0"}),
        Status(503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Broken(),
        Broken(after=40),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(server: EmbeddingServer, behaviour: Behaviour) -> None:
    with connected(server) as encoder:
        server.then(behaviour, behaviour)
        rows = encoder.encode(TEXTS)
    np.testing.assert_allclose(rows, HashingEncoder(DIMENSION).encode(TEXTS), atol=1e-6)
    assert len(server.requests) == 3


def test_the_wait_is_at_least_what_the_server_asked_for(server: EmbeddingServer) -> None:
    with connected(server) as encoder:
        server.then(Status(429, {"Retry-After": "0.4"}))
        encoder.encode(TEXTS)
    first, second = server.requests
    assert second.at - first.at >= 0.4


def test_a_server_that_wants_a_long_wait_is_not_asked_again(server: EmbeddingServer) -> None:
    with connected(server) as encoder:
        server.then(Status(429, {"Retry-After": "3600"}))
        with pytest.raises(EncoderUnavailableError, match="status 429"):
            encoder.encode(TEXTS)
    assert len(server.requests) == 1


def test_tries_end(server: EmbeddingServer) -> None:
    with connected(server, retries=1) as encoder:
        server.then(Status(500), Status(500))
        with pytest.raises(EncoderUnavailableError, match="status 500; is it running"):
            encoder.encode(TEXTS)
        assert len(server.requests) == 2
        assert encoder.encode(TEXTS).shape == (len(TEXTS), DIMENSION)


@pytest.mark.parametrize("pause", [3600, 0.05], ids=["silent", "dripping"])
def test_an_answer_that_takes_too_long_is_given_up_and_not_asked_for_again(
    server: EmbeddingServer, pause: float
) -> None:
    """Whether nothing comes, or a little now and then, which keeps a connection's clock from
    running out."""
    with connected(server, timeout=0.3) as encoder:
        server.then(Slow(pause))
        with pytest.raises(EncoderUnavailableError, match=r"does not answer within 0\.3 s"):
            encoder.encode(TEXTS)
        assert len(server.requests) == 1
        assert encoder.encode(TEXTS).shape == (len(TEXTS), DIMENSION)


def embedding(value: Any) -> Callable[[dict[str, Any]], Any]:
    """The answer with ``value`` in the place of its first embedding."""

    def change(answer: dict[str, Any]) -> Any:
        answer["data"][0]["embedding"] = value
        return answer

    return change


def data(change: Callable[[list[Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """The answer with its list of embeddings changed."""
    return lambda answer: answer | {"data": change(answer["data"])}


WRONG = {
    "too few": (data(lambda rows: rows[:-1]), "not one for each of 5 texts"),
    "too many": (data(lambda rows: [*rows, rows[0] | {"index": 5}]), "not one for each"),
    "none": (data(lambda rows: []), "not one for each"),
    "an index twice": (data(lambda rows: [rows[0], *rows[:-1]]), "not one for each"),
    "an index that is text": (
        data(lambda rows: [row | {"index": str(row["index"])} for row in rows]),
        "not one for each",
    ),
    "no index": (data(lambda rows: [{"embedding": r["embedding"]} for r in rows]), "no list of"),
    "one shorter": (embedding([1.0] * (DIMENSION - 1)), "not of one dimension"),
    "nested": (embedding([[1.0] * DIMENSION]), "not of one dimension"),
    "empty": (embedding([]), "not of one dimension"),
    "not a number": (embedding([math.nan] * DIMENSION), "not finite, or zero"),
    "infinite": (embedding([math.inf] * DIMENSION), "not finite, or zero"),
    "overflowing": (embedding([1e300] * DIMENSION), "not finite, or zero"),
    "zeros": (embedding([0.0] * DIMENSION), "not finite, or zero"),
    "a huge whole number": (embedding([10**400] * DIMENSION), "no list of embeddings"),
    "words": (embedding([SECRET] * DIMENSION), "no list of embeddings"),
    "bad base64": (embedding("§§§"), "no list of embeddings"),
    "cut base64": (embedding("AAAA"), "no list of embeddings"),
    "null": (embedding(None), "not of one dimension"),
    "a list": (lambda answer: [answer], "no list of embeddings"),
    "an error in a 200": (lambda answer: {"error": {"message": SECRET}}, "no list of embeddings"),
    "a page": (lambda answer: b"<html>" + SECRET.encode(), "no JSON"),
    "cut JSON": (lambda answer: json.dumps(answer).encode()[:-20], "no JSON"),
    "deep JSON": (lambda answer: b"[" * 200_000, "no JSON"),
    "no UTF-8": (lambda answer: b'{"data": "\xff"}', "no JSON"),
    "nothing": (lambda answer: b"", "no JSON"),
    "far too much": (lambda answer: b" " * (17 << 20), "more than 16 MiB"),
}


@pytest.mark.parametrize(("change", "what"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_never_used_or_told(
    server: EmbeddingServer, change: Callable[[dict[str, Any]], Any], what: str
) -> None:
    """It is not asked for again either, and says nothing of the query."""
    with connected(server) as encoder:
        server.then(Changed(change))
        with pytest.raises(EncoderUnavailableError, match=what) as caught:
            encoder.encode([*TEXTS[:4], SECRET])
    assert len(server.requests) == 1
    assert "Patient" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (301, "answers with a redirect"),
        (400, "refuses the request; its log says why"),
        (401, "refuses the key"),
        (403, "refuses the key"),
        (404, 'knows no model "hash-64"'),
        (413, "refuses the request"),
        (422, "refuses the request"),
    ],
)
def test_a_refusal_is_told_with_server_status_and_what_to_do(
    server: EmbeddingServer, code: int, what: str
) -> None:
    """It is not tried again, and holds neither the query nor the key, though the server repeats
    both."""
    with connected(server, key=lambda: KEY) as encoder:
        server.then(Status(code, {"location": "http://127.0.0.1:9/" + SECRET}))
        with pytest.raises(EncoderUnavailableError, match=what) as caught:
            encoder.encode([SECRET])
    assert len(server.requests) == 1
    message = str(caught.value)
    assert f'the encoder "remote" at {server.url}' in message
    assert f"(status {code})" in message
    assert "Patient" not in message
    assert KEY not in message


def test_at_load_a_refusal_is_a_mistake_and_no_passing_trouble(server: EmbeddingServer) -> None:
    """A start that cannot succeed must not be taken for a server that is still starting."""
    with pytest.raises(EncoderError, match='knows no model "hash-46"') as caught:
        RemoteEncoder("remote", server.url, "hash-46")
    assert not isinstance(caught.value, EncoderUnavailableError)


def test_at_load_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(EncoderUnavailableError, match=r"cannot be reached .*is it running\?"):
        RemoteEncoder("remote", nobody(), "hash-64")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "nonsense", "http://[/v1"])
def test_an_address_that_is_none_is_an_encoder_error(url: str) -> None:
    with pytest.raises(EncoderError):
        RemoteEncoder("remote", url, "hash-64", retries=0)


def test_no_proxy_is_taken_from_the_environment(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, nobody())
    with connected(server) as encoder:
        assert encoder.encode(TEXTS).shape == (len(TEXTS), DIMENSION)


def test_a_server_that_comes_back_is_used_again() -> None:
    with contextlib.ExitStack() as stack:
        with embedding_server() as server:
            port = port_of(server)
            encoder = stack.enter_context(connected(server))
            before = encoder.encode(TEXTS)
        with pytest.raises(EncoderUnavailableError):
            encoder.encode(TEXTS)
        stack.enter_context(embedding_server(port=port))
        np.testing.assert_array_equal(encoder.encode(TEXTS), before)


class _Other(HashingEncoder):
    """Another model of the same dimension."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        return super().encode([text[::-1].upper() for text in texts])


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (HashingEncoder(32), "gives vectors of 32 values, not 64"),
        (_Other(DIMENSION), "gives other vectors than it did"),
    ],
)
def test_another_model_behind_the_same_name_is_noticed(
    server: EmbeddingServer, other: HashingEncoder, what: str
) -> None:
    """By its dimension, or by the vector of a sentence that is known since the load."""
    with connected(server, check_every=0) as encoder:
        server.encoder = other
        with pytest.raises(EncoderUnavailableError, match=what):
            encoder.encode(TEXTS)


def test_the_model_is_checked_again_after_a_failure_and_not_at_each_request(
    server: EmbeddingServer,
) -> None:
    """A failure may be a restart, so whatever answers next may be another model."""
    with connected(server, retries=0, check_every=3600) as encoder:
        encoder.encode(TEXTS)
        encoder.encode(TEXTS)
        assert server.inputs == [TEXTS, TEXTS]
        server.then(Broken())
        with pytest.raises(EncoderUnavailableError):
            encoder.encode(TEXTS)
        server.encoder = _Other(DIMENSION)
        with pytest.raises(EncoderUnavailableError, match="gives other vectors"):
            encoder.encode(TEXTS)
        assert server.inputs.count(TEXTS) == 1
        server.encoder = HashingEncoder(DIMENSION)
        encoder.encode(TEXTS)
        encoder.encode(TEXTS)
        assert server.inputs[-2:] == [TEXTS, TEXTS]


def test_the_fingerprint_is_of_the_model_and_not_of_the_address(server: EmbeddingServer) -> None:
    """So vectors kept from one server serve with its twin, and never with another model."""
    with (
        connected(server) as first,
        embedding_server(as_base64=False) as twin,
        connected(twin) as second,
        embedding_server(encoder=_Other(DIMENSION)) as swapped,
        connected(swapped) as third,
        embedding_server(encoder=HashingEncoder(32)) as smaller,
        connected(smaller) as fourth,
        embedding_server(model="renamed") as renamed,
        connected(renamed) as fifth,
    ):
        assert first.fingerprint == second.fingerprint
        others = {first.fingerprint, third.fingerprint, fourth.fingerprint, fifth.fingerprint}
        assert len(others) == 4


def test_the_fingerprint_bears_another_machines_rounding(server: EmbeddingServer) -> None:
    class Noisy(HashingEncoder):
        def encode(self, texts: Sequence[str]) -> Vectors:
            rows = super().encode(texts)
            return rows + np.random.default_rng(7).normal(0, 1e-6, rows.shape).astype(np.float32)

    with (
        connected(server) as first,
        embedding_server(encoder=Noisy(DIMENSION)) as noisy,
        connected(noisy) as second,
    ):
        assert first.fingerprint == second.fingerprint


def test_the_window_is_what_the_server_lists_or_the_usual_least(server: EmbeddingServer) -> None:
    with connected(server) as silent, embedding_server(window=8192) as telling:
        assert silent.window == 512
        with connected(telling) as encoder:
            assert encoder.window == 8192


def test_spans_cover_what_is_written_in_pieces_no_longer_than_a_token_may_be() -> None:
    text = "Analyse (BRCA1) 写代码\n\tquickly!"
    with embedding_server() as server, connected(server) as encoder:
        spans = encoder.spans(text)
    assert [text[a:b] for a, b in spans][:6] == ["Anal", "yse", "(", "BRCA", "1", ")"]
    assert "".join(text[a:b] for a, b in spans) == "".join(text.split())


def test_a_spec_is_loaded_with_the_key_of_its_environment(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RemoteModel("remote", server.url, server.model, ("FIRST_KEY", "SECOND_KEY"))
    monkeypatch.setenv("SECOND_KEY", KEY)
    encoder = load_encoder(spec)
    assert isinstance(encoder, RemoteEncoder)
    encoder.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(spec)


def test_what_was_learned_is_kept_for_the_next_start(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    """A second build asks only for what a load asks, and gives the same verdicts."""
    utterances = load_utterances(write_files(tmp_path / "utterances", UTTERANCES))
    query = ["write a python function"]
    with connected(server) as encoder:
        first = Classifier.build(utterances, encoder, tmp_path)
        built = {text for texts in server.inputs for text in texts}
        assert {u.text for u in utterances.utterances} <= built
    with connected(server) as encoder:
        second = Classifier.build(utterances, encoder, tmp_path)
        asked = {text for texts in server.inputs for text in texts}
        assert not {u.text for u in utterances.utterances} & asked
        assert first.encoder.fingerprint == encoder.fingerprint
        assert second.classify(query)[0].task == "code_generation"


async def test_a_server_decides_with_the_encoder_that_its_profile_names(
    server: EmbeddingServer,
) -> None:
    profile = {
        "classifier": {"encoder": {"model": "embedder"}},
        "backends": {"here": {"provider": "vllm", "url": server.url}},
        "models": {
            "echo": {"provider": "echo"},
            "embedder": {"backend": "here", "id": server.model, "kind": "embedding"},
        },
        "routes": {"default": {"model": "echo"}},
    }
    async with (
        running_server(profile=profile, encoder="") as running,
        RouterClient(running.address) as client,
    ):
        decision = await client.decide("write a python script")
    assert (decision.encoder, decision.classification.task) == ("embedder", "code_generation")
    assert server.inputs[-1][:1] == ["write a python script"]
