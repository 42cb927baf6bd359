"""The right answer, in pieces: what a fault then spoils.

Its text follows from the question, so that whoever asked can tell a whole answer from one that was
cut, and its own from another's: ``whole(question)`` is what every token together must be.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 16
"""How long an answer is where its fault does not say."""


def words(question: str, tokens: int = TOKENS) -> Iterator[str]:
    """The tokens of the right answer, one after the other."""
    digest = hashlib.sha256(question.encode()).hexdigest()[:8]
    for number in range(tokens):
        yield f" {number}" if number else f"answer-{digest}"


def whole(question: str, tokens: int = TOKENS) -> str:
    """The right answer as one text. ``question`` is the last message's text."""
    return "".join(words(question, tokens))


def error(message: str, code: int | str, kind: str = "server_error") -> dict[str, Any]:
    """An error object as OpenAI writes it."""
    return {"error": {"message": f"fault server: {message}", "type": kind, "code": code}}


class Form(Protocol):
    """How an answer is written down. Every method gives one piece of the body."""

    media: str
    comment: bytes
    """What keeps the connection alive and says nothing."""
    malformed: bytes
    done: bytes

    def opening(self) -> bytes:
        """What comes before the first token."""

    def token(self, text: str) -> bytes:
        """A piece of the text."""

    def ending(self, reason: str | None, tokens: int) -> bytes:
        """How the answer ended; ``tokens`` have been sent."""

    def error(self, body: dict[str, Any]) -> bytes:
        """An error in the place of what should come."""


class Stream:
    """Server-sent events, as ``stream: true`` asks for."""

    media = "text/event-stream"
    comment = b": keep-alive\n\n"
    malformed = b'data: {"choices": [{"delta": {"con\n\n'
    done = b"data: [DONE]\n\n"

    def __init__(self, model: str, *, usage: bool) -> None:
        self._usage = usage
        self._head = {
            "id": "chatcmpl-fault",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._before, self._after = self._choice({"content": "|"}).split(b"|")

    def opening(self) -> bytes:
        return self._choice({"role": "assistant", "content": ""})

    def token(self, text: str) -> bytes:
        return self._before + json.dumps(text)[1:-1].encode() + self._after

    def ending(self, reason: str | None, tokens: int) -> bytes:
        end = self._choice({}, reason)
        return end + _event(self._head | _usage(tokens) | {"choices": []}) if self._usage else end

    def error(self, body: dict[str, Any]) -> bytes:
        return _event(body)

    def _choice(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return _event(
            self._head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        )


class Body:
    """One JSON object, cut into the same pieces, as an answer that is not streamed."""

    media = "application/json"
    comment = b"\n"
    malformed = b'\\u00"'
    done = b""

    def __init__(self, model: str) -> None:
        self._model = model

    def opening(self) -> bytes:
        head = {"id": "chatcmpl-fault", "object": "chat.completion", "created": int(time.time())}
        start = json.dumps(head | {"model": self._model})[:-1]
        return f'{start}, "choices": [{{"index": 0, "message": {_MESSAGE}'.encode()

    def token(self, text: str) -> bytes:
        return json.dumps(text)[1:-1].encode()

    def ending(self, reason: str | None, tokens: int) -> bytes:
        usage = json.dumps(_usage(tokens))[1:]
        return f'"}}, "finish_reason": {json.dumps(reason)}}}], {usage}'.encode()

    def error(self, body: dict[str, Any]) -> bytes:
        return json.dumps(body).encode()


_MESSAGE = '{"role": "assistant", "content": "'


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _usage(tokens: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}}
