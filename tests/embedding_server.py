"""A real /v1/embeddings server on loopback, which misbehaves as a test tells it.

    with embedding_server() as server:
        encoder = RemoteEncoder("remote", server.url, server.model)
        server.then(Status(503))  # the next request is refused; every later one is answered

It runs in threads, because an encoder blocks while it asks, and answers with the vectors of a
hashing encoder. It notes every request for embeddings.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeAlias

from semroute_classifier.encoders import HashingEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from semroute_classifier.encoders import Encoder

DIMENSION = 64


@dataclass(frozen=True)
class Status:
    """An answer that is no 200; its body repeats the request, as careless servers do."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changed:
    """The right answer, changed on its way: to other JSON, or to bytes."""

    change: Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Broken:
    """The connection breaks after so many bytes of the right answer; none are not even headers."""

    after: int = 0


@dataclass(frozen=True)
class Slow:
    """The right answer in pieces of ten bytes, with a pause before each."""

    pause: float


Behaviour: TypeAlias = Status | Changed | Broken | Slow


@dataclass(frozen=True)
class Received:
    """A request for embeddings. ``at`` is in seconds of the monotonic clock."""

    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float


class EmbeddingServer:
    """What it embeds with, what it does next, and what it was asked."""

    def __init__(
        self, model: str, encoder: Encoder, window: int | None, *, as_base64: bool
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.window = window
        self.as_base64 = as_base64
        self.url = ""
        self.requests: list[Received] = []
        self.stopping = threading.Event()
        self._next: deque[Behaviour] = deque()

    def then(self, *behaviours: Behaviour) -> None:
        """Do these with the next requests for embeddings, one each."""
        self.requests.clear()
        self._next.extend(behaviours)

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of each request."""
        return [request.body["input"] for request in self.requests]

    def next(self) -> Behaviour | None:
        return self._next.popleft() if self._next else None

    def listed(self) -> dict[str, Any]:
        entry = {"id": self.model} | ({"max_model_len": self.window} if self.window else {})
        return {"object": "list", "data": [{"id": "another", "max_model_len": 7}, entry]}

    def embeddings(self, texts: list[str]) -> dict[str, Any]:
        rows = self.encoder.encode(texts) * 3.0  # servers need not give unit length
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(row.tobytes()).decode()
                if self.as_base64
                else row.tolist(),
            }
            for i, row in enumerate(rows)
        ]
        return {"object": "list", "data": data, "model": self.model}


@contextlib.contextmanager
def embedding_server(
    model: str = "hash-64",
    encoder: Encoder | None = None,
    *,
    window: int | None = None,
    as_base64: bool = True,
    port: int = 0,
) -> Iterator[EmbeddingServer]:
    """Serve on loopback; ``url`` is the base that a profile wants."""
    state = EmbeddingServer(
        model, encoder or HashingEncoder(DIMENSION), window, as_base64=as_base64
    )
    server = _Server(("127.0.0.1", port), _Handler)
    server.state = state
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        for connection in list(server.connections):
            connection.close_connection = True
            with contextlib.suppress(OSError):
                connection.connection.shutdown(2)
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    state: EmbeddingServer
    connections: set[_Handler]

    def __init__(self, *args: Any) -> None:
        self.connections = set()
        super().__init__(*args)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self)

    def finish(self) -> None:
        self.server.connections.discard(self)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self._send(b"{}", 404)
        return self._send(json.dumps(self.server.state.listed()).encode())

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        state, body = self.server.state, json.loads(raw)
        if self.path != "/v1/embeddings" or body["model"] != state.model:
            return self._send(raw, 404)
        state.requests.append(Received(dict(self.headers), body, time.monotonic()))
        answer = state.embeddings(body["input"])
        behaviour = state.next()
        if isinstance(behaviour, Status):
            return self._send(raw, behaviour.code, behaviour.headers)
        if isinstance(behaviour, Changed):
            answer = behaviour.change(answer)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if isinstance(behaviour, Broken):
            return self._break(data, behaviour.after)
        return self._send(data, pause=behaviour.pause if isinstance(behaviour, Slow) else None)

    def _send(
        self,
        data: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        pause: float | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        pieces = [data] if pause is None else [data[i : i + 10] for i in range(0, len(data), 10)]
        with contextlib.suppress(OSError):  # whoever asked may have left
            for piece in pieces:
                if pause and self.server.state.stopping.wait(pause):
                    return
                self.wfile.write(piece)

    def _break(self, data: bytes, after: int) -> None:
        self.close_connection = True
        if after:
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:after])
