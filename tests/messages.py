"""What the Messages API sends, piece by piece, and what its backend makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from semroute_service.backends.anthropic_messages import AnthropicMessagesBackend
from semroute_service.backends.base import ChatRequest
from semroute_service.backends.http import HttpClient
from semroute_service.profile import Backend, Model, Provider
from semroute_service.query import Message, Options, Role, Sensitivity
from upstream import Stream, stream

if TYPE_CHECKING:
    from semroute_service.backends import Event

CLAUDE = Provider(
    id="claude",
    name="Claude",
    protocol="anthropic_messages",
    locality="cloud",
    key_required=False,
)
USED = {
    "input_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "output_tokens": 1,
}
"""Eleven tokens of prompt, and the first of an answer."""


def event(kind: str, **fields: Any) -> bytes:
    """One event, with its name before it."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode(errors="surrogatepass")


def begin(**usage: int) -> bytes:
    """The message begins; its usage so far is ``USED``, unless it says otherwise."""
    message = {"id": "msg_1", "role": "assistant", "content": [], "usage": USED | usage}
    return event("message_start", message=message)


def opened(index: int, kind: str, **fields: Any) -> bytes:
    """A block begins."""
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def piece(index: int, kind: str, **fields: Any) -> bytes:
    """A block grows."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def closed(index: int) -> bytes:
    """A block ends."""
    return event("content_block_stop", index=index)


def said(*texts: str, index: int = 0) -> bytes:
    """A block of text."""
    pieces = b"".join(piece(index, "text_delta", text=text) for text in texts)
    return opened(index, "text", text="") + pieces + closed(index)


def thought(*texts: str, index: int = 0) -> bytes:
    """A block of thinking, signed."""
    pieces = b"".join(piece(index, "thinking_delta", thinking=text) for text in texts)
    start = opened(index, "thinking", thinking="", signature="")
    return start + pieces + piece(index, "signature_delta", signature="c2ln") + closed(index)


def called(name: str, *arguments: str, index: int = 0) -> bytes:
    """A block that calls a tool; its id is ``toolu_`` and the name."""
    start = opened(index, "tool_use", id=f"toolu_{name}", name=name, input={})
    pieces = b"".join(piece(index, "input_json_delta", partial_json=each) for each in arguments)
    return start + pieces + closed(index)


def ended(reason: str = "end_turn", output: int = 7, **usage: Any) -> bytes:
    """The message ends; ``output`` is the count of the whole answer."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    usage = {"output_tokens": output, **usage}
    return event("message_delta", delta=delta, usage=usage) + event("message_stop")


def broken(kind: str, message: str = "no") -> bytes:
    """An error inside the stream."""
    return event("error", error={"type": kind, "message": message})


def reply(text: str = "well") -> Stream:
    """A whole, flawless answer."""
    return stream(begin(), said(text), ended())


def claude(url: str, **fields: Any) -> Model:
    """A model at ``url`` that speaks the protocol."""
    backend = Backend("first", CLAUDE, url, False, "", Sensitivity.PUBLIC)
    return Model("first", "claude-id", backend, frozenset(), **fields)


HELLO = (Message(Role.USER, ("hello",)),)


async def events_of(
    model: Model, messages: tuple[Message, ...] = HELLO, options: Options | None = None
) -> list[Event]:
    """All that the backend yields; raises what it raises."""
    http = HttpClient()
    try:
        request = ChatRequest(model, messages, options or Options())
        return [each async for each in AnthropicMessagesBackend(http).stream(request)]
    finally:
        await http.close()
