"""Server-sent events (WHATWG HTML, section 9.2), as far as completions need them: the data."""

from __future__ import annotations

MAX_EVENT_BYTES = 1024 * 1024


class EventTooLongError(Exception):
    """One event is longer than ``MAX_EVENT_BYTES``."""


class EventParser:
    """Feed it bytes as they arrive; it returns the data of every event that is complete.

    Memory is bounded by one event. Comments and other fields are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that ``chunk`` completes, in order."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                value = line[5:]
                self._data.append(value[1:] if value.startswith(b" ") else value)
                self._size += len(line)
            elif not line and self._data:
                events.append(self._take())
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[bytes]:
        """What stands unfinished when the stream ends; some servers omit the last blank line."""
        events = self.feed(b"\n") if self._rest else []
        return [*events, self._take()] if self._data else events

    def _take(self) -> bytes:
        data = b"\n".join(self._data)
        self._data, self._size = [], 0
        return data
