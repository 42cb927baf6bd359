"""Every fault by the name of the model that has it, with a sentence each."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semroute_service.faults import behaviours as b
from semroute_service.faults.answers import TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.faults.behaviours import Asked, Script, Step

LONGEST_SECONDS = 600.0
"""Nothing lasts longer; then the connection is closed."""
MOST_TOKENS = 1_000_000
_DURATION = re.compile(
    r"(?=.)(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


class UnknownFaultError(Exception):
    """The name is no fault's, or its parameter is wrong; says what would be right."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may stand behind a name's colon. ``most`` is in the same unit."""

    unit: str
    default: str
    most: float

    def read(self, text: str) -> float:
        """``text`` as a number, a duration in seconds; NaN where it is neither."""
        if self.unit == "DURATION":
            found = _DURATION.fullmatch(text)
            parts = [float(part or 0) for part in found.groups()] if found else [math.nan] * 4
            return parts[0] * 3600 + parts[1] * 60 + parts[2] + parts[3] / 1000
        return float(text) if _NUMBER.fullmatch(text) else math.nan


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to answer."""

    name: str
    says: str
    script: Script
    parameter: Parameter | None = None

    @property
    def usage(self) -> str:
        """The name with its parameter, as people read it."""
        return f"{self.name}:{self.parameter.unit}" if self.parameter else self.name

    @property
    def example(self) -> str:
        """The name with its default, which is the same as without."""
        return f"{self.name}:{self.parameter.default}" if self.parameter else self.name


def _tokens(default: int) -> Parameter:
    return Parameter("N", str(default), MOST_TOKENS)


def _seconds(default: str) -> Parameter:
    return Parameter("SECONDS", default, LONGEST_SECONDS)


def _duration(default: str) -> Parameter:
    return Parameter("DURATION", default, 366 * 86_400.0)


_RATE = "429 with {}; one request is answered when that time has come"
_LISTED = [
    Fault("ok", "a whole answer of N tokens, as fast as they are read", b.ok, _tokens(TOKENS)),
    Fault("wide", "a whole answer of N tokens of 1 KiB, for slow readers", b.wide, _tokens(1_000)),
    Fault("slow", "a whole answer, SECONDS between two tokens", b.slow, _seconds("0.2")),
    # refused before the answer begins
    Fault("400", "400, a malformed request", b.status(400, "bad", kind="invalid_request_error")),
    Fault("401", "401, the key is wrong", b.status(401, "no such key", "invalid_api_key")),
    Fault("402", "402, the account has no balance", b.status(402, "no balance")),
    Fault("403", "403, the key may not do this", b.status(403, "not allowed")),
    Fault("404", "404, there is no such model", b.status(404, "no such model", "model_not_found")),
    Fault("408", "408, the request took too long to arrive", b.status(408, "too slow")),
    Fault("413", "413, the request is too large", b.status(413, "too large")),
    Fault("422", "422, a field cannot be processed", b.status(422, "bad field")),
    Fault("500", "500, for ever", b.status(500, "it broke")),
    Fault(
        "500-once",
        "500 for the first N requests, then whole answers",
        b.once,
        Parameter("N", "1", 1_000),
    ),
    Fault("502", "502, for ever", b.status(502, "bad gateway")),
    Fault("503", "503, for ever", b.status(503, "it is down")),
    Fault("504", "504, for ever", b.status(504, "it took too long")),
    Fault("529", "529, overloaded, for ever", b.status(529, "overloaded", kind="overloaded_error")),
    Fault(
        "flapping",
        "N whole answers, then N times 503, and again",
        b.flapping,
        Parameter("N", "1", 1_000),
    ),
    Fault("429", "429 without a word of when to come back, for ever", b.status(429, "slow down")),
    Fault(
        "429-seconds",
        _RATE.format("Retry-After in seconds"),
        b.limited(b.after_seconds),
        _seconds("1"),
    ),
    Fault(
        "429-date", _RATE.format("Retry-After as a date"), b.limited(b.after_date), _seconds("1")
    ),
    Fault(
        "429-ms",
        _RATE.format("retry-after-ms"),
        b.limited(b.after_milliseconds),
        Parameter("MILLISECONDS", "250", LONGEST_SECONDS * 1000),
    ),
    Fault(
        "429-reset",
        _RATE.format("x-ratelimit-reset-requests, such as 6m0s"),
        b.limited(b.reset_duration),
        _duration("6m0s"),
    ),
    Fault(
        "429-retry-delay",
        _RATE.format("Google's retryDelay in the body, such as 34s"),
        b.limited(b.nothing, gemini=True),
        _duration("34s"),
    ),
    Fault(
        "context-length",
        "400, the conversation is longer than the model's context",
        b.status(400, "too many tokens", "context_length_exceeded", "invalid_request_error"),
    ),
    Fault(
        "content-filter",
        "400, the content filter refuses the question",
        b.status(400, "refused", "content_filter", "invalid_request_error"),
    ),
    # no answer at all
    Fault("reset", "the connection is reset before the headers", b.reset),
    Fault("hang-up", "the connection is closed before the headers", b.hang_up),
    Fault("silence", "no headers ever", b.silence),
    Fault(
        "slow-headers",
        "headers that come byte by byte and never end",
        b.slow_headers,
        _seconds("0.1"),
    ),
    Fault("cut-headers", "the connection is closed within the headers", b.cut_headers),
    # a 200 that is none
    Fault("wrong-type", "200 with a page of HTML", b.wrong_type),
    Fault("not-streamed", "200 with one JSON object, whatever was asked for", b.not_streamed),
    Fault("error-in-200", "200 with an error in the place of the first token", b.error_in_200),
    Fault(
        "slow-first", "headers at once, the first token after SECONDS", b.slow_first, _seconds("20")
    ),
    Fault(
        "keep-alive",
        "comments for SECONDS, then a whole answer; 0 is for ever",
        b.keep_alive,
        _seconds("0"),
    ),
    Fault("all-malformed", "1,000 chunks that cannot be read, and no other", b.all_malformed),
    Fault(
        "megabyte-line",
        "one token of N MiB in one line",
        b.megabyte_line,
        Parameter("N", "2", 16),
    ),
    # spoiled after the first token
    Fault("cut", "N tokens, then the connection is closed", b.cut, _tokens(5)),
    Fault("cut-reset", "N tokens, then the connection is reset", b.reset_midway, _tokens(5)),
    Fault("stall", "N tokens, then silence", b.stall, _tokens(5)),
    Fault("error-mid-stream", "N tokens, then an error", b.error_midway, _tokens(5)),
    Fault("truncated-json", "8 tokens, half a chunk, then the end", b.truncated_json),
    Fault("no-end", "all tokens, and neither a finish reason nor [DONE]", b.no_end),
    Fault("only-done", "all tokens and [DONE], and no finish reason", b.only_done),
    Fault(
        "endless",
        "N tokens without an end, then the connection is closed",
        b.endless,
        _tokens(100_000),
    ),
    # odd, and whole
    Fault("malformed", "one chunk that cannot be read among good ones", b.malformed),
    Fault("no-done", "a finish reason, and no [DONE]", b.no_done),
    Fault("length", "N tokens, then the finish reason length", b.too_short, _tokens(5)),
    Fault("filtered", "N tokens, then the finish reason content_filter", b.filtered, _tokens(5)),
]
RANDOM = (
    *("429", "429-ms:100", "500", "502", "503", "529", "reset", "hang-up", "silence"),
    *("cut-headers", "wrong-type", "error-in-200", "stall:0", "keep-alive", "all-malformed"),
    *("megabyte-line", "cut:0", "cut:5", "cut-reset:5", "stall:5", "error-mid-stream:5"),
    *("truncated-json", "no-end", "only-done", "malformed", "no-done"),
)
"""What ``random`` chooses from, each as likely as the others. The last two spoil nothing."""


def _random(asked: Asked) -> Iterator[Step]:
    if asked.random.random() >= asked.parameter:
        yield from asked.whole()
        return
    asked.became = asked.random.choice(RANDOM)
    fault, parameter, asked.written = parse(asked.became)
    yield from fault.script(replace(asked, parameter=parameter))


_LISTED.append(
    Fault(
        "random",
        "one of many faults for this SHARE of requests, whole answers for the rest",
        _random,
        Parameter("SHARE", "0.3", 1.0),
    )
)
FAULTS = {fault.name: fault for fault in _LISTED}
"""Every fault, by its name."""


def parse(model: str) -> tuple[Fault, float, str]:
    """The fault that a model's name means, its parameter, and that as it was written.

    Raises ``UnknownFaultError``.
    """
    name, colon, text = model.partition(":")
    fault = FAULTS.get(name)
    if fault is None:
        near = difflib.get_close_matches(name, FAULTS, 1)
        hint = f", the nearest is {near[0]}" if near else ""
        raise UnknownFaultError(f'no fault is named "{name[:40]}"{hint}')
    if fault.parameter is None:
        if colon:
            raise UnknownFaultError(f"{name} takes no parameter")
        return fault, 0.0, ""
    text = text if colon else fault.parameter.default
    value = fault.parameter.read(text)
    if not value <= fault.parameter.most:
        most = f"{fault.parameter.most:,.0f}"
        raise UnknownFaultError(f"write {fault.usage}, such as {fault.example}, {most} at most")
    return fault, value, text
