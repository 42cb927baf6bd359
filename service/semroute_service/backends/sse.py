"""Server-sent events (WHATWG HTML, section 9.2), as far as completions need them: the data."""

from __future__ import annotations

MAX_EVENT_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """One event is longer than ``MAX_EVENT_BYTES``."""


class EventParser:
    """Feed it bytes as they arrive; it returns the data of every event that is complete.

    Memory is bounded by one event, and every byte is looked at a few times only, however the
    network has cut the stream. Comments and other fields are skipped.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        """Of the event that is not complete yet, with LF at the end of every line."""
        self._size = 0
        self._in_line = True
        """False where the last piece ended a line."""
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that ``chunk`` completes, in order."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        if not chunk:
            return []
        if chunk.endswith(b"\n\n") and not self._pieces and not self._at_start:
            return _events(chunk[:-2])  # nearly all chunks hold whole events
        completes = b"\n\n" in chunk or (not self._in_line and chunk.startswith(b"\n"))
        self._pieces.append(chunk)
        self._size += len(chunk)
        self._in_line = not chunk.endswith(b"\n")
        events = self._complete() if completes else []
        if self._size > MAX_EVENT_BYTES:
            self._forget_comments()
        return events

    def close(self) -> list[bytes]:
        """What stands unfinished when the stream ends; some servers omit the last blank line."""
        return self.feed(b"\n\n")

    def _with_lf(self, chunk: bytes) -> bytes:
        """A line may end with CR, LF or both; a CR ends it before it is known what follows."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _complete(self) -> list[bytes]:
        """Take out the events that are complete, and keep the rest."""
        stream = b"".join(self._pieces)
        if self._at_start:
            self._at_start = False
            stream = stream.removeprefix(_BOM)
        whole, _, rest = stream.rpartition(b"\n\n")
        self._keep(rest)
        return _events(whole)

    def _forget_comments(self) -> None:
        """Keep-alives that no blank line follows are no part of the event that comes after them.

        Half of the limit must be free then, or this would be done again and again.
        """
        *lines, rest = b"".join(self._pieces).split(b"\n")
        kept = [line for line in lines if _is_data(line)]
        self._keep(b"\n".join([*kept, rest]))
        if self._size > MAX_EVENT_BYTES // 2:
            raise EventTooLongError(f"no event ends within {MAX_EVENT_BYTES} bytes")

    def _keep(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        self._in_line = not rest.endswith(b"\n")


def _events(whole: bytes) -> list[bytes]:
    """The data of complete events, between which blank lines stand."""
    events: list[bytes] = []
    for event in whole.split(b"\n\n"):
        if event.startswith(b"data: ") and b"\n" not in event:
            events.append(event[6:])  # nearly all are so
        else:
            data = _data(event.split(b"\n"))
            if data is not None:
                events.append(data)
    return events


def _is_data(line: bytes) -> bool:
    return line == b"data" or line.startswith(b"data:")


def _data(lines: list[bytes]) -> bytes | None:
    """The data of one event; None where it has none."""
    values = [line[5:].removeprefix(b" ") for line in lines if _is_data(line)]
    return b"\n".join(values) if values else None
