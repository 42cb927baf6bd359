"""The reader of server-sent events: every splitting reads the same, and memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semroute_service.backends.sse import MAX_EVENT_BYTES, EventParser, EventTooLongError

DATA = [b"data: one", b"data:two", b"data:", b"data:  spaced", b"data: \xc3\xa9"]
LINES = st.sampled_from([*DATA, b": alive", b":", b"event: x", b"id: 7", b"nonsense", b"", b""])
ENDS = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream, in pieces that know nothing of its lines."""
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=12))
    stream = b"".join(line + end for line, end in lines)
    stream = stream[: draw(st.integers(0, len(stream)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


@given(split_streams())
def test_any_splitting_gives_the_same_events(pieces: list[bytes]) -> None:
    """Where the network cuts a stream, and where the stream ends, changes no event."""
    whole = b"".join(pieces)
    assert read(*pieces) == read(whole) == read(*(bytes([byte]) for byte in whole))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": alive\n\nevent: x\nid: 1\ndata: a\nretry: 3\n\n\n\n", [b"a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"dataset: a\n\n", []),
        (b"", []),
    ],
)
def test_fields(stream: bytes, events: list[bytes]) -> None:
    """Data is read as the standard says, lines of one event joined, all else passed over."""
    assert read(stream) == events


@pytest.mark.parametrize(
    "end", [b"", b"\n", b"\r", b"\r\n", b"\r\n\r"], ids=["none", "lf", "cr", "crlf", "crlfcr"]
)
def test_a_last_event_without_its_blank_line_counts(end: bytes) -> None:
    """A server that closes without the last line end, or in the middle of it, loses no event."""
    assert read(b"data: a\n\ndata: last" + end) == [b"a", b"last"]


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 1000 + b"\n", b"x" * 1000, b"data:\n" * 100],
    ids=["lines", "one line", "empty lines"],
)
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    """An event beyond the limit raises, whatever it is made of."""
    pieces = [piece] * (2 * MAX_EVENT_BYTES // len(piece))
    with pytest.raises(EventTooLongError):
        read(*pieces)


def test_a_long_stream_of_short_events_is_no_long_event() -> None:
    """The limit is of one event: a stream may be as long as it likes, comments included."""
    parser = EventParser()
    piece = b": alive\n" + b"data: " + b"x" * 10_000 + b"\n\n"
    assert sum(len(parser.feed(piece)) for _ in range(300)) == 300
    assert parser.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 100) + b"\n\n")
