"""As much of HTTP/2 and gRPC as it takes to ask for one method and note when its messages come.

Python's own gRPC client takes about as long for a message as the server that sends it, so on few
cores a measurement with it is largely one of the client. This one costs next to nothing, as the
HTTP client beside it does. RFC 9113; github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from stream_ways import Answer

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
WIDEST = 2**31 - 1
FIRST_WINDOW = 65_535
CANCEL = struct.pack(">I", 8)


class Connection(asyncio.Protocol):
    """Asks for the one method at ``path``; answers share the connection."""

    def __init__(self, path: str) -> None:
        self._headers = _headers(path)
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._may_send = FIRST_WINDOW
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WIDEST)
        more = struct.pack(">I", WIDEST - FIRST_WINDOW)
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, more)
        )

    async def ask(self, message: bytes, answer: Answer) -> None:
        """Put each message of the answer into ``answer`` as it comes, until the stream ends."""
        number, self._next = self._next, self._next + 2
        body = struct.pack(">BI", 0, len(message)) + message
        self._may_send -= len(body)
        assert self._may_send >= 0, "the server takes no more"
        call = self._calls[number] = _Call(answer)
        self._transport.write(
            frame(HEADERS, END_HEADERS, number, self._headers)
            + frame(DATA, END_STREAM, number, body)
        )
        try:
            await call.ended
        finally:
            if self._calls.pop(number, None):
                self._transport.write(frame(RST_STREAM, 0, number, CANCEL))

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        data = self._waiting + data
        start, end = 0, len(data)
        while start + 9 <= end:
            size = int.from_bytes(data[start : start + 3], "big")
            body, after = start + 9, start + 9 + size
            if after > end:
                break
            kind, flags = data[start + 3], data[start + 4]
            number = int.from_bytes(data[start + 5 : body], "big")
            if kind == DATA:
                if call := self._calls.get(number):
                    call.take(at, data[body:after])
            else:
                self._control(kind, flags, number, data[body:after])
            if flags & END_STREAM and kind in (DATA, HEADERS):
                self._end(number)
            start = after
        self._waiting = data[start:]

    def _control(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind in (PING, SETTINGS) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, body if kind == PING else b""))
        elif kind == WINDOW_UPDATE and number == 0:
            self._may_send += int.from_bytes(body, "big")
        elif kind == RST_STREAM:
            self._end(number)
        elif kind == GOAWAY:
            self._transport.close()

    def _end(self, number: int) -> None:
        """Whole or not: the last message says it, so nobody has to read the trailers."""
        call = self._calls.pop(number, None)
        if call and not call.ended.done():
            call.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls.values():
            if not call.ended.done():
                call.ended.set_exception(exc or ConnectionResetError("the server went away"))

    def close(self) -> None:
        self._transport.abort()


class _Call:
    """One answer: its bytes cut into messages."""

    def __init__(self, answer: Answer) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces = answer.pieces
        self._waiting = b""

    def take(self, at: float, data: bytes) -> None:
        data = self._waiting + data
        start = 0
        while len(data) >= start + 5:
            end = start + 5 + int.from_bytes(data[start + 1 : start + 5], "big")
            if end > len(data):
                break
            self._pieces.append((at, data[start + 5 : end]))
            start = end
        self._waiting = data[start:]


def frame(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, number) + body


def _headers(path: str) -> bytes:
    """Each as it is, without compression (RFC 7541, 6.2.2)."""
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "127.0.0.1",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in pairs.items())


def _string(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
