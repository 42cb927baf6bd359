"""An embedding model behind an OpenAI-compatible server: POST {url}/embeddings.

vLLM, Text Embeddings Inference, infinity and llama.cpp speak it. Redirects are not followed and no
proxy is taken from the environment, so a query goes to the server that the profile names and to no
other. No message holds a text, a key or what the server wrote.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from semroute_classifier.encoders.base import EncoderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from semroute_classifier.encoders.base import States, Vectors

TIMEOUT = 10.0
"""Seconds for one whole answer."""
RETRIES = 2
BATCH = 32
"""Texts of one request; Text Embeddings Inference refuses more unless it is told otherwise."""
CHECK_EVERY = 10.0
"""Seconds for which a server is believed to have the model that it had."""
WINDOW = 512
"""Tokens that are taken to be read where the server does not say; the least that is usual."""

_RESTART = "where its model was changed on purpose, restart semroute"
_CONNECT_SECONDS = 2.0
_BACKOFF_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
"""Queries wait behind this one, so a server that asks for more patience counts as gone."""
_MOST_BYTES = 16 * 1024 * 1024
_ALIKE = 0.99
"""The least cosine of a known sentence to its vector at load; other precision gives 0.999."""
# Letters by four and all else one by one: more tokens than a tokenizer makes, so none is cut off.
_TOKEN = re.compile(r"[A-Za-z]{1,4}|[^\sA-Za-z]")


class EncoderUnavailableError(EncoderError):
    """A remote encoder cannot embed now.

    ``again`` is in how many seconds the same request may succeed; None where it is not worth
    waiting.
    """

    def __init__(self, message: str, again: float | None = None) -> None:
        self.again = again
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """An embedding model on a server, as a profile declares it.

    ``name`` is what decisions call it, ``id`` what the server does; ``url`` ends where
    ``/embeddings`` follows. ``key_env`` are the environment variables that may hold the key.
    ``fallback`` names the local encoder that serves while the server does not; empty is none.
    """

    name: str
    url: str
    id: str
    key_env: tuple[str, ...] = ()
    fallback: str = ""

    def key(self) -> str:
        """The key, read when it is used; empty where none is set."""
        return next((os.environ[name] for name in self.key_env if os.environ.get(name)), "")


class RemoteEncoder:
    """Blocks while it asks; keeps its connection open between calls.

    A server may be restarted with another model at any time. So now and then, and after every
    failure, it is asked first for a sentence whose vector is known since the load, and believed
    only where that is what it was.
    """

    def __init__(
        self,
        name: str,
        url: str,
        model: str,
        key: Callable[[], str] | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        batch: int = BATCH,
        check_every: float = CHECK_EVERY,
    ) -> None:
        """Ask the server for a few known vectors; ``key`` is called at each request.

        Raises ``EncoderUnavailableError`` where it does not answer, and ``EncoderError`` where
        what it answers cannot be served with.
        """
        self.name = name
        self._url = url.rstrip("/")
        self._model = model
        self._key = key
        self._timeout = timeout
        self._retries = retries
        self._batch = batch
        self._check_every = check_every
        self.dimension = self.width = 0  # until the first answer tells
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            follow_redirects=False,
            trust_env=False,
        )
        # Whoever holds an encoder need not know that this one has something to close.
        self._closing = weakref.finalize(self, self._client.close)
        try:
            known = self._embed_all(_SENTENCES)
            self.window = self._listed_window() or WINDOW
        except BaseException:
            self.close()
            raise
        self._known = known[0]
        self._believed_until = time.monotonic() + check_every
        self.dimension = self.width = known.shape[1]
        self.fingerprint = _fingerprint(model, known)

    def close(self) -> None:
        """Close the connection; happens by itself when nobody holds the encoder any more."""
        self._closing()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """An estimate, because the tokenizer is the server's; rather too many than too few."""
        return [match.span() for match in _TOKEN.finditer(text)]

    def encode(self, texts: Sequence[str]) -> States:
        """Raises ``EncoderUnavailableError`` for every failure: it worked when it was loaded."""
        if not texts:
            return np.empty((0, self.width), dtype=np.float32)
        try:
            if time.monotonic() >= self._believed_until:
                self._check()
            return self._embed_all(texts)
        except EncoderError as error:
            self._believed_until = 0.0
            if isinstance(error, EncoderUnavailableError):
                raise
            raise EncoderUnavailableError(str(error)) from error

    def _check(self) -> None:
        """Raise where the server's model is not the one that it had at load."""
        if self._embed(_SENTENCES[:1])[0] @ self._known < _ALIKE:
            raise self._error(f"gives other vectors than it did; {_RESTART}")
        self._believed_until = time.monotonic() + self._check_every

    def _embed_all(self, texts: Sequence[str]) -> Vectors:
        chunks = [texts[i : i + self._batch] for i in range(0, len(texts), self._batch)]
        return np.concatenate([self._embed(chunk) for chunk in chunks])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of at most ``batch`` texts, by one request."""
        inputs = [_sendable(text) for text in texts]
        body = {"model": self._model, "input": inputs, "encoding_format": "base64"}
        answer = self._patiently("/embeddings", body)
        try:
            rows = _unit_rows(answer, len(texts))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            # What numpy says of a value may repeat it; our own words come without one.
            what = str(error) if isinstance(error, _AnswerError) else "no list of embeddings"
            raise self._error(f"answers wrongly: {what}") from None
        found, expected = rows.shape[1], self.dimension
        if expected and found != expected:
            raise self._error(f"gives vectors of {found} values, not {expected}; {_RESTART}")
        return rows

    def _listed_window(self) -> int | None:
        """The model's length in the server's list of models; vLLM tells it."""
        try:
            listed = self._ask("/models")["data"]
            found = [entry.get("max_model_len") for entry in listed if entry["id"] == self._model]
        except (EncoderError, AttributeError, KeyError, TypeError):
            return None
        return found[0] if found and isinstance(found[0], int) and found[0] > 0 else None

    def _patiently(self, path: str, body: dict[str, Any]) -> Any:
        """Ask, and ask again where that may help."""
        for attempt in range(self._retries):
            try:
                return self._ask(path, body)
            except EncoderUnavailableError as error:
                if error.again is None or error.again > _LONGEST_WAIT_SECONDS:
                    raise
                time.sleep(max(error.again, _BACKOFF_SECONDS * 2**attempt))
        return self._ask(path, body)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of one answer: GET, or POST where there is a body."""
        ends = time.monotonic() + self._timeout
        content = json.dumps(body).encode() if body else None
        method = "POST" if body else "GET"
        try:
            with self._client.stream(
                method, self._url + path, content=content, headers=self._headers()
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(response)
                received = self._received(response, ends)
        except httpx.TimeoutException:
            # Not tried again: whoever waits has waited long enough.
            raise self._gone(f"does not answer within {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            raise self._gone(f"cannot be reached ({type(error).__name__})", 0.0) from None
        except httpx.InvalidURL:
            raise self._error("has no http or https address") from None
        try:
            return json.loads(received)
        except (ValueError, RecursionError):
            raise self._error("answers with what is no JSON; is this its address?") from None

    def _received(self, response: httpx.Response, ends: float) -> bytes:
        """The body; httpx's own clock starts anew with each piece, this one does not."""
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MOST_BYTES:
                raise self._error(f"answers with more than {_MOST_BYTES >> 20} MiB")
            if time.monotonic() > ends:
                raise httpx.ReadTimeout("the whole answer takes too long")
        return bytes(body)

    def _headers(self) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "semroute",
        }
        key = self._key().strip() if self._key else ""
        if not (key.isascii() and key.isprintable()):
            raise self._error("cannot be given its key: no header can carry it")
        return headers | ({"authorization": f"Bearer {key}"} if key else {})

    def _refusal(self, response: httpx.Response) -> EncoderError:
        status = response.status_code
        match status:
            case 429 | 500 | 502 | 503 | 504:
                return self._gone(f"answers with status {status}", _retry_after(response.headers))
            case 401 | 403:
                what = "refuses the key; set the environment variable that its provider names"
            case 404:
                what = f'knows no model "{self._model}", or its url does not end as in /v1'
            case _ if status >= 500:
                return self._gone(f"answers with status {status}", 0.0)
            case _ if 300 <= status < 400:
                what = "answers with a redirect; give the address that it leads to"
            case _:
                what = "refuses the request; its log says why"
        return self._error(f"{what} (status {status})")

    def _gone(self, what: str, again: float | None = None) -> EncoderUnavailableError:
        return EncoderUnavailableError(str(self._error(f"{what}; is it running?")), again)

    def _error(self, what: str) -> EncoderError:
        return EncoderError(f'the server of the encoder "{self.name}" at {self._url} {what}')


class _AnswerError(ValueError):
    """An answer of the right form whose content cannot be used."""


def _unit_rows(answer: Any, count: int) -> Vectors:
    """The answer's embeddings in the order of the texts, scaled to length 1."""
    entries = sorted(answer["data"], key=lambda entry: entry["index"])
    if [entry["index"] for entry in entries] != list(range(count)):
        raise _AnswerError(f"its embeddings are not one for each of {count} texts")
    rows = [_row(entry["embedding"]) for entry in entries]
    if any(row.ndim != 1 or row.shape != rows[0].shape or not row.size for row in rows):
        raise _AnswerError("its embeddings are not of one dimension")
    vectors = np.stack(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise _AnswerError("an embedding is not finite, or zero")
    return np.ascontiguousarray(vectors / lengths, dtype=np.float32)


def _row(embedding: Any) -> NDArray[np.float64]:
    """Base64 of little-endian float32 as asked for, or numbers, as servers give that know none."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float64)
    return np.asarray(embedding, dtype=np.float64)


def _sendable(text: str) -> str:
    """Half a character becomes ``?`` and nothing becomes a dot; servers refuse both."""
    return text.encode(errors="replace").decode() if text.strip() else "."


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds; 0 where the server does not say, or gives a date."""
    try:
        seconds = float(headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return seconds if seconds > 0 else 0.0


def _fingerprint(model: str, known: Vectors) -> str:
    """Of what the vectors say, not of where they come from.

    The similarities of a few sentences, coarsely rounded: another model gives others, while the
    same one on another machine differs in the sixth decimal, and in the fourth at half precision.
    """
    similarities = np.round(known @ known.T, 1)[np.triu_indices(len(known), k=1)] + 0.0
    content = json.dumps([1, model, known.shape[1], [f"{s:.1f}" for s in similarities]])
    return "remote-" + hashlib.sha256(content.encode()).hexdigest()[:16]


_SENTENCES = (
    "Write a function that merges two sorted lists.",
    "Merge both of these sorted arrays into one, in Python.",
    "Which of these variants is likely to be pathogenic?",
    "Is this mutation harmful?",
    "Könntest du mir bitte die Ergebnisse der letzten drei Läufe zusammenfassen?",
    "What is the weather like in Lisbon tomorrow?",
    "SELECT name, count(*) FROM visits GROUP BY name;",
    "p = 0.049, n = 12: should I believe it?",
)
"""What is asked at load. Some are alike and some are not, so that a model has much to say."""
