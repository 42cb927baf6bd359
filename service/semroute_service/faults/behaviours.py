"""What each fault does: a script of steps, which the server plays one after the other.

``bytes`` are a piece of the body of a 200; the rest of the steps are below. A script that ends
ends the answer as HTTP wants it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from semroute_service.faults import answers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from semroute_service.faults.answers import Form

FOR_EVER = math.inf
"""As long as the server lets anything last."""
WIDE = 1024
"""Letters of a wide token; it ends in as many dots as it takes."""
_MALFORMED_CHUNKS = 1_000
_COMMENT_SECONDS = 0.1
_MOMENT_SECONDS = 0.1
"""Enough to read what has been sent before something spoils it."""
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing comes for so many seconds."""

    seconds: float = FOR_EVER


@dataclass(frozen=True, slots=True)
class Refuse:
    """A whole answer that is no 200."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Other:
    """A 200 of another media type than was asked for."""

    media: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Hang:
    """The connection ends here; with ``reset``, by a TCP reset."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Drip:
    """Raw bytes in the place of an HTTP answer, ``seconds`` apart."""

    pieces: Iterator[bytes]
    seconds: float = 0.0


Step: TypeAlias = bytes | Wait | Refuse | Other | Hang | Drip


@dataclass
class Memory:
    """What the server remembers of one model's name. ``until`` is of ``time.time``."""

    asked: int = 0
    until: float | None = None


@dataclass
class Asked:
    """One request, as its fault sees it. ``now`` is of ``time.time``; ``parameter`` is the number
    behind the colon, a duration in seconds."""

    parameter: float
    written: str
    """The parameter as the model's name has it."""
    question: str
    form: Form
    memory: Memory
    now: float
    random: random.Random
    became: str = ""
    """Which fault chance chose."""

    @property
    def count(self) -> int:
        return int(self.parameter)

    def begun(self, tokens: int) -> Iterator[bytes]:
        """The beginning of an answer, with so many tokens."""
        yield self.form.opening()
        for word in answers.words(self.question, tokens):
            yield self.form.token(word)

    def whole(self, tokens: int = answers.TOKENS, reason: str = "stop") -> Iterator[bytes]:
        """An answer with nothing wrong."""
        yield from self.begun(tokens)
        yield self.form.ending(reason, tokens)
        yield self.form.done


Script: TypeAlias = "Callable[[Asked], Iterator[Step]]"


def ok(asked: Asked) -> Iterator[Step]:
    yield from asked.whole(asked.count)


def wide(asked: Asked) -> Iterator[Step]:
    yield asked.form.opening()
    for word in answers.words(asked.question, asked.count):
        yield asked.form.token(word.ljust(WIDE, "."))
    yield asked.form.ending("stop", asked.count)
    yield asked.form.done


def slow(asked: Asked) -> Iterator[Step]:
    for piece in asked.whole():
        yield piece
        yield Wait(asked.parameter)


def slow_first(asked: Asked) -> Iterator[Step]:
    first, *rest = asked.whole()
    yield first
    yield Wait(asked.parameter)
    yield from rest


def keep_alive(asked: Asked) -> Iterator[Step]:
    """Comments, for ever or for so many seconds before a whole answer."""
    gone = 0.0
    while gone < (asked.parameter or FOR_EVER):
        yield asked.form.comment
        yield Wait(_COMMENT_SECONDS)
        gone += _COMMENT_SECONDS
    yield from asked.whole()


def status(code: int, message: str, word: str = "", kind: str = "server_error") -> Script:
    """Every request is refused with this status."""

    def script(asked: Asked) -> Iterator[Step]:
        yield Refuse(code, answers.error(message, word or code, kind))

    return script


def once(asked: Asked) -> Iterator[Step]:
    if asked.memory.asked <= asked.count:
        yield from status(500, "it stumbled")(asked)
    else:
        yield from asked.whole()


def flapping(asked: Asked) -> Iterator[Step]:
    if (asked.memory.asked - 1) // max(asked.count, 1) % 2:
        yield from status(503, "it is down just now")(asked)
    else:
        yield from asked.whole()


def limited(headers: Callable[[Asked], dict[str, str]], *, gemini: bool = False) -> Script:
    """A 429 that says when to come back. Once that time has come one request is answered, and the
    next is refused again."""

    def script(asked: Asked) -> Iterator[Step]:
        memory = asked.memory
        if memory.until is not None and asked.now >= memory.until:
            memory.until = None
            yield from asked.whole()
            return
        told = headers(asked)
        memory.until = memory.until or asked.now + asked.parameter
        body: Any = answers.error("slow down", 429, "rate_limit_error")
        yield Refuse(429, _gemini(asked.written) if gemini else body, told)

    return script


def after_seconds(asked: Asked) -> dict[str, str]:
    return {"retry-after": asked.written}


def after_date(asked: Asked) -> dict[str, str]:
    """A date holds whole seconds only, so the time asked for ends with the next of them."""
    asked.memory.until = asked.memory.until or math.ceil(asked.now + asked.parameter)
    date = datetime.fromtimestamp(asked.memory.until, UTC)
    return {"retry-after": format_datetime(date, usegmt=True)}


def after_milliseconds(asked: Asked) -> dict[str, str]:
    asked.memory.until = asked.memory.until or asked.now + asked.parameter / 1000
    return {"retry-after-ms": asked.written}


def reset_duration(asked: Asked) -> dict[str, str]:
    limits = ("limit", "1"), ("remaining", "0"), ("reset", asked.written)
    return {f"x-ratelimit-{name}-requests": value for name, value in limits}


def nothing(_: Asked) -> dict[str, str]:
    return {}


def _gemini(delay: str) -> list[dict[str, Any]]:
    """The same in Google's form: a list, with the delay among the details."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    said = {"code": 429, "message": "fault server: slow down", "status": "RESOURCE_EXHAUSTED"}
    return [{"error": said | {"details": [info]}}]


def reset(_: Asked) -> Iterator[Step]:
    yield Hang(reset=True)


def hang_up(_: Asked) -> Iterator[Step]:
    yield Hang()


def silence(_: Asked) -> Iterator[Step]:
    yield Wait()


def slow_headers(asked: Asked) -> Iterator[Step]:
    def drops() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nx-slow: "
        while True:
            yield b"o"

    yield Drip(drops(), asked.parameter)


def cut_headers(_: Asked) -> Iterator[Step]:
    yield Drip(iter([b"HTTP/1.1 200 OK\r\ncontent-ty"]))


def wrong_type(_: Asked) -> Iterator[Step]:
    yield Other("text/html", b"<!doctype html><title>Sign in</title>")


def not_streamed(asked: Asked) -> Iterator[Step]:
    asked.form = answers.Body("not-streamed")
    yield Other("application/json", b"".join(asked.whole()))


def error_in_200(asked: Asked) -> Iterator[Step]:
    yield asked.form.error(answers.error("it is overloaded", 503, "overloaded_error"))


def error_midway(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(asked.count)
    yield Wait(_MOMENT_SECONDS)
    yield from error_in_200(asked)


def cut(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(asked.count)
    yield Hang()


def reset_midway(asked: Asked) -> Iterator[Step]:
    """A reset takes along what has not been read."""
    yield from asked.begun(asked.count)
    yield Wait(_MOMENT_SECONDS)
    yield Hang(reset=True)


def stall(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(asked.count)
    yield Wait()


def malformed(asked: Asked) -> Iterator[Step]:
    first, second, *rest = asked.whole()
    yield from (first, second, asked.form.malformed, *rest)


def all_malformed(asked: Asked) -> Iterator[Step]:
    for _ in range(_MALFORMED_CHUNKS):
        yield asked.form.malformed


def truncated_json(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(answers.TOKENS // 2)
    torn = asked.form.token(" torn")
    yield torn[: len(torn) // 2]


def no_done(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(answers.TOKENS)
    yield asked.form.ending("stop", answers.TOKENS)


def no_end(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(answers.TOKENS)


def only_done(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(answers.TOKENS)
    yield asked.form.done


def filtered(asked: Asked) -> Iterator[Step]:
    yield from asked.whole(asked.count, "content_filter")


def too_short(asked: Asked) -> Iterator[Step]:
    yield from asked.whole(asked.count, "length")


def megabyte_line(asked: Asked) -> Iterator[Step]:
    yield asked.form.opening()
    yield asked.form.token("x" * int(asked.parameter * _MEBIBYTE))
    yield asked.form.ending("stop", 1)
    yield asked.form.done


def endless(asked: Asked) -> Iterator[Step]:
    yield from asked.begun(asked.count)
    yield Hang()
