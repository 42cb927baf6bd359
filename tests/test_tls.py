"""Backends over TLS: who vouches for one, and what is said where nobody does."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from semroute_service.backends import checking, http
from semroute_service.backends.base import BackendError, TlsError
from semroute_service.backends.http import HttpClient
from semroute_service.decision import ErrorClass
from semroute_service.profile import Backend, load_providers
from semroute_service.query import Sensitivity
from sockets import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CERTIFICATE = Path(__file__).parent / "data/self_signed.pem"
"""For localhost and 127.0.0.1, valid for a hundred years, with its key, which keeps no secret."""


@pytest.fixture(autouse=True)
def trust_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whom to believe is read once in a process."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    http._trust.cache_clear()
    yield
    http._trust.cache_clear()


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server that lists one model, over TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with serving(_app(), tls=tls) as address:
        yield address


def _app() -> web.Application:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "it"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    return app


def _backend(address: str) -> Backend:
    provider = load_providers()["openai_compatible"]
    return Backend("it", provider, f"https://{address}/v1", True, "", Sensitivity.RESTRICTED)


async def test_a_site_names_its_own_authority(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names whom to believe, and that is believed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    client = HttpClient()
    assert await checking.ask(client, _backend(address), 5) == checking.Answer(("it",))
    await client.close()


async def test_a_certificate_that_nobody_vouches_for(address: str) -> None:
    """It is refused, as one that cannot be reached, and said for what it is."""
    client = HttpClient()
    said = "its certificate is not trusted (self-signed certificate); see SSL_CERT_FILE"
    found = await checking.ask(client, _backend(address), 5)
    assert found == checking.Answer(problem=said, well=False)
    with pytest.raises(TlsError) as raised:
        await client.fetch(_backend(address), "/embeddings", {})
    assert (raised.value.error_class, raised.value.detail) == (ErrorClass.PROVIDER_CONNECT, said)
    await client.close()


async def test_a_file_that_holds_no_certificate(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever cannot be judged is not believed, and why is said; plain HTTP needs no judge."""
    client = HttpClient()
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        found = await checking.ask(client, _backend(address), 5)
        assert found.problem.startswith("SSL_CERT_FILE cannot be read (")
        assert not found.well
    async with serving(_app()) as plain:
        local = replace(_backend(plain), url=f"http://{plain}/v1")
        assert (await checking.ask(client, local, 5)).models == ("it",)
    await client.close()


async def test_a_server_that_speaks_no_tls() -> None:
    """https where http was meant is said, too."""
    client = HttpClient()
    async with serving(_app()) as address:
        with pytest.raises(BackendError) as raised:
            await client.fetch(_backend(address), "/embeddings", {})
        assert raised.value.detail == "does not speak TLS as it should (wrong version number)"
    await client.close()
