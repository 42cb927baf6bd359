"""The reader of server-sent events: every splitting reads the same, and memory is bounded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semroute_service.backends.sse import MAX_EVENT_BYTES, EventParser, EventTooLongError

DATA = [b"data: one", b"data:two", b"data:", b"data", b"data:  spaced", b"data: \xc3\xa9"]
OTHERS = [b": alive", b":", b"event: x", b"id: 7", b"retry: 3", b"nonsense", b"database: 1"]
LINES = st.sampled_from([*DATA, *OTHERS, b"", b""])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
BOM = b"\xef\xbb\xbf"


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream, in pieces that know nothing of its lines."""
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=12))
    stream = draw(st.sampled_from([b"", BOM])) + b"".join(line + end for line, end in lines)
    stream = stream[: draw(st.integers(0, len(stream)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def by_the_book(stream: bytes) -> list[bytes]:
    """The standard's own words, line by line; only that the last event needs no blank line."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in [*re.split(rb"\r\n|\r|\n", stream.removeprefix(BOM)), b""]:
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            events.append(b"\n".join(data))
            data = []
    return events


@settings(deadline=None)
@given(split_streams())
def test_any_splitting_gives_the_same_events(pieces: list[bytes]) -> None:
    """Where the network cuts a stream, and where the stream ends, changes no event."""
    whole = b"".join(pieces)
    assert read(*pieces) == read(whole) == read(*(bytes([byte]) for byte in whole))
    assert read(whole) == by_the_book(whole)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_are_read_somehow(pieces: list[bytes]) -> None:
    """No bytes at all can raise, and none of them counts twice."""
    assert sum(map(len, read(*pieces))) <= sum(map(len, pieces))


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
    [
        b"data: " + b"x" * 1000 + b"\n",
        b"x" * 1000,
        b"data:\n" * 100,
        b": alive\ndata: " + b"x" * 1000 + b"\r",
    ],
    ids=["lines", "one line", "empty lines", "comments between"],
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


def test_comments_without_a_blank_line_are_not_kept() -> None:
    """Keep-alives for hours are no long event, and leave nothing behind; the data among them is
    not lost."""
    parser = EventParser()
    assert not parser.feed(b"data: one\n")
    for _ in range(100):
        assert not parser.feed(b": alive\n" * 5_000)
    assert parser.feed(b"data: two\n\n") == [b"one\ntwo"]
