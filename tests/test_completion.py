"""What becomes of an answer when upstreams fail: before the first delta, after it, and for good."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from semroute.v1 import router_pb2 as pb
from semroute_service.backends.availability import LONG_SECONDS
from semroute_service.decision import Delta
from semroute_service.errors import StreamInterruptedError
from semroute_service.query import Message, Query, Role
from semroute_service.router import Ask
from semroute_service.testing import running_server
from upstream import (
    DONE,
    GENEROUS,
    Behaviour,
    Cut,
    Raw,
    Status,
    Step,
    Told,
    Wait,
    answer,
    ask,
    chain,
    failure,
    finish,
    outcome,
    profile,
    routed,
    say,
    stream,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMPATIENT = {"timeout_seconds": 1.0}
HALF = (say("half"), Wait(0.2))
"""A delta that goes out before anything else happens."""
ALIVE: tuple[Step, ...] = (b": alive\n\n", Wait(0.1))

BEFORE: Mapping[str, tuple[Behaviour, str]] = {
    "500": (Status(500), "PROVIDER_UNAVAILABLE"),
    "502": (Status(502, "<html>bad gateway</html>"), "PROVIDER_UNAVAILABLE"),
    "503": (Status(503), "PROVIDER_UNAVAILABLE"),
    "408": (Status(408), "PROVIDER_UNAVAILABLE"),
    "429": (Status(429), "PROVIDER_RATE_LIMIT"),
    "401": (Status(401), "PROVIDER_CREDENTIALS"),
    "402": (Status(402), "PROVIDER_CREDENTIALS"),
    "403": (Status(403), "PROVIDER_CREDENTIALS"),
    "404": (Status(404), "PROVIDER_MODEL_NOT_FOUND"),
    "418": (Status(418), "PROVIDER_PROTOCOL"),
    "closed before headers": (Raw(), "PROVIDER_CONNECT"),
    "closed within headers": (Raw(b"HTTP/1.1 200 OK\r\nContent-"), "PROVIDER_CONNECT"),
    "silent before headers": (Wait(), "PROVIDER_TIMEOUT"),
    "silent after headers": (stream(Wait()), "PROVIDER_TIMEOUT"),
    "alive but silent": (stream(*ALIVE * 99), "PROVIDER_TIMEOUT"),
    "empty": (stream(), "PROVIDER_CONNECT"),
    "empty deltas": (stream(say(""), say(role="assistant")), "PROVIDER_CONNECT"),
    "only DONE": (stream(DONE), "PROVIDER_CONNECT"),
    "cut": (stream(b": alive\n\n", Cut()), "PROVIDER_CONNECT"),
    "error inside": (stream(failure("overloaded")), "PROVIDER_UNAVAILABLE"),
    "rate limit inside": (stream(failure("slow down", code=429)), "PROVIDER_RATE_LIMIT"),
    "error as text inside": (stream({"error": "no"}), "PROVIDER_UNAVAILABLE"),
}
AFTER: Mapping[str, tuple[tuple[Step, ...], str]] = {
    "cut": ((Cut(),), "PROVIDER_INTERRUPTED"),
    "closed": ((), "PROVIDER_INTERRUPTED"),
    "DONE without finish": ((DONE,), "PROVIDER_INTERRUPTED"),
    "error object": ((failure("overloaded"),), "PROVIDER_UNAVAILABLE"),
    "silence": ((Wait(),), "PROVIDER_TIMEOUT"),
    "rubbish": ((b"data: {{{\n\n" * 50,), "PROVIDER_PROTOCOL"),
}


async def tell(*behaviours: Behaviour, behavior: Any = None, **options: Any) -> Told:
    """What a caller is told where the upstreams behave like this."""
    async with chain(*behaviours, behavior=behavior or {}) as (client, _):
        return await ask(client, **options)


def reason(told: Told) -> str:
    """The status and reason of the error, which left no finish."""
    assert told.error
    assert told.answer.finish is None
    return f"{told.error.code.name} {told.error.reason}"


@pytest.mark.parametrize("how", BEFORE)
async def test_before_the_first_delta_the_next_one_answers(how: str) -> None:
    """A failure before anything was promised costs the caller nothing, and is on the record."""
    behaviour, error_class = BEFORE[how]
    async with chain(behaviour, answer("well"), behavior=IMPATIENT) as (client, servers):
        told = await ask(client)
    assert (told.text, told.finish.model, told.finish.backend) == ("well", "second", "second")
    assert told.answer.decision
    assert told.answer.decision.model == "first"
    assert told.failures == [("first", error_class)]
    assert [outcome(a) for a in told.finish.attempts] == [("first", error_class), ("second", "OK")]
    assert told.answer.restarts == 0
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_a_refused_connection_leads_to_the_next_one() -> None:
    """Where nothing listens any more, the next candidate answers."""
    async with contextlib.AsyncExitStack() as until_then, upstream() as second:
        first = await until_then.enter_async_context(upstream())
        async with routed(profile(first, second)) as client:
            await until_then.aclose()
            told = await ask(client)
    assert told.failures == [("first", "PROVIDER_CONNECT")]
    assert told.finish.model == "second"


async def test_candidates_are_tried_in_the_order_of_the_decision() -> None:
    """The chain is walked as the decision announced it, each attempt with its own times."""
    async with chain(Status(500), Status(404), answer()) as (client, servers):
        told = await ask(client)
    assert told.answer.decision
    assert list(told.answer.decision.fallback_chain) == ["second", "third"]
    attempts = told.finish.attempts
    assert [attempt.model for attempt in attempts] == ["first", "second", "third"]
    arrived = [server.requests[0].at for server in servers]
    assert arrived == sorted(arrived)
    began = [attempt.started_at.ToNanoseconds() for attempt in attempts]
    assert began == sorted(began)
    assert [a.HasField("time_to_first_token") for a in attempts] == [False, False, True]
    assert list(told.answer.attempts) == list(attempts[:2])


@pytest.mark.parametrize("how", AFTER)
async def test_after_the_first_delta_nobody_else_goes_on(how: str) -> None:
    """A broken answer ends in an error that says so; no other model continues it in silence."""
    steps, error_class = AFTER[how]
    async with chain(stream(*HALF, *steps), answer(), behavior=IMPATIENT) as (client, servers):
        told = await ask(client)
    assert reason(told) == "UNAVAILABLE STREAM_INTERRUPTED"
    assert told.text == "half"
    assert told.failures == [("first", error_class)]
    assert told.answer.attempts[0].usage.estimated
    assert told.answer.attempts[0].usage.completion_tokens > 0
    assert not servers[1].requests


@pytest.mark.parametrize("how", AFTER)
async def test_after_the_first_delta_a_caller_may_allow_a_restart(how: str) -> None:
    """With allow_restart the half is discarded aloud, and the next one's answer is whole."""
    broken = stream(*HALF, *AFTER[how][0])
    async with chain(broken, answer("whole"), behavior=IMPATIENT | {"max_retries": 2}) as (
        client,
        servers,
    ):
        told = await ask(client, allow_restart=True)
    assert [delta.text for delta in told.deltas] == ["half", "whole"]
    assert (told.answer.restarts, told.text, told.finish.model) == (1, "whole", "second")
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_a_restart_is_announced_before_an_empty_answer_too() -> None:
    """Where the second answer has no text, the half of the first is discarded all the same."""
    told = await tell(stream(*HALF, Cut()), stream(finish(), DONE), allow_restart=True)
    assert (told.answer.restarts, told.text, told.finish.model) == (1, "", "second")


@pytest.mark.parametrize(
    "last",
    [stream(*HALF), Status(500), Status(400), Status(400, failure("content_filter"))],
    ids=["broken", "dead", "malformed", "filtered"],
)
async def test_a_restart_that_fails_is_an_interruption(last: Behaviour) -> None:
    """Who holds a half that nobody could replace is told that it is not whole."""
    told = await tell(stream(*HALF), last, allow_restart=True)
    assert reason(told) == "UNAVAILABLE STREAM_INTERRUPTED"
    assert [model for model, _ in told.failures] == ["first", "second"]


@pytest.mark.parametrize(
    "behaviour", [Status(400), Status(422), stream(failure("bad", code=400))], ids=repr
)
async def test_a_malformed_request_is_the_callers(behaviour: Behaviour) -> None:
    """What one upstream calls malformed is not tried at others."""
    async with chain(behaviour, answer(), behavior={"max_retries": 2}) as (client, servers):
        told = await ask(client)
    assert reason(told) == "INVALID_ARGUMENT UPSTREAM_INVALID_REQUEST"
    assert [len(server.requests) for server in servers] == [1, 0]


TOO_LONG = [
    Status(400, failure("This model's maximum context length is 8192 tokens.")),
    Status(400, failure("too long", code="context_length_exceeded")),
    Status(413),
    stream(failure("too long", code="context_length_exceeded")),
]


@pytest.mark.parametrize("behaviour", TOO_LONG, ids=repr)
async def test_what_is_too_long_for_one_is_tried_at_the_next(behaviour: Behaviour) -> None:
    """A longer context may stand behind a short one."""
    told = await tell(behaviour, answer("well"))
    assert told.failures == [("first", "CALLER_CONTEXT_LENGTH")]
    assert told.text == "well"


@pytest.mark.parametrize("behaviour", TOO_LONG, ids=repr)
async def test_what_is_too_long_for_all_is_the_callers(behaviour: Behaviour) -> None:
    """If no context is long enough, the caller learns why."""
    told = await tell(behaviour, behaviour)
    assert reason(told) == "INVALID_ARGUMENT CONTEXT_LENGTH_EXCEEDED"


@pytest.mark.parametrize(
    "behaviour",
    [
        Status(400, failure("no", code="content_filter")),
        stream(finish("content_filter"), DONE),
        stream(failure("no", code="content_filter")),
    ],
    ids=repr,
)
async def test_a_content_filter_is_not_routed_around(behaviour: Behaviour) -> None:
    """What one upstream's filter refuses is not tried at another."""
    async with chain(behaviour, answer()) as (client, servers):
        told = await ask(client)
    assert reason(told) == "FAILED_PRECONDITION CONTENT_FILTERED"
    assert told.failures == [("first", "POLICY_CONTENT_FILTER")]
    assert not servers[1].requests


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [
        ((Status(401), Status(403)), "UNAVAILABLE UPSTREAM_CREDENTIALS"),
        ((Status(401), Status(500)), "UNAVAILABLE BACKENDS_UNAVAILABLE"),
        ((Status(413), Status(503)), "UNAVAILABLE BACKENDS_UNAVAILABLE"),
        ((Status(503), Raw(), Status(404)), "UNAVAILABLE BACKENDS_UNAVAILABLE"),
    ],
    ids=repr,
)
async def test_why_nobody_answered(behaviours: tuple[Behaviour, ...], expected: str) -> None:
    """When all fail, the status says whose fault it is, and when to come back."""
    told = await tell(*behaviours)
    assert reason(told) == expected
    assert len(told.failures) == len(behaviours)
    assert told.error
    if expected.endswith("BACKENDS_UNAVAILABLE"):
        assert told.error.retry_after
        assert told.error.retry_after > 0


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        *((how, 3) for how in ("500", "503", "429", "closed before headers", "error inside")),
        *((how, 1) for how in ("401", "404", "418", "silent before headers")),
    ],
)
async def test_max_retries(how: str, calls: int) -> None:
    """What may pass is tried again, as often as the profile says and no oftener; the rest once."""
    retrying = IMPATIENT | {"max_retries": 2}
    async with chain(BEFORE[how][0], answer(), behavior=retrying) as (client, servers):
        told = await ask(client)
    assert [len(server.requests) for server in servers] == [calls, 1]
    assert told.failures == [("first", BEFORE[how][1])] * calls


async def test_a_retry_that_succeeds_stays_with_the_first() -> None:
    """A stumble is not a fall: the second call to the same backend answers."""
    async with chain((Status(503), answer()), answer(), behavior={"max_retries": 1}) as (
        client,
        servers,
    ):
        told = await ask(client)
    assert [outcome(a) for a in told.finish.attempts] == [
        ("first", "PROVIDER_UNAVAILABLE"),
        ("first", "OK"),
    ]
    assert not servers[1].requests


async def test_a_short_retry_after_is_waited_for() -> None:
    """One second, asked for by the upstream, passes before it is called again."""
    busy = Status(429, headers={"retry-after": "1"})
    async with chain((busy, answer()), behavior={"max_retries": 1}) as (client, (server,)):
        assert (await ask(client)).finish
    assert server.requests[1].at - server.requests[0].at >= 0.95


@pytest.mark.parametrize(("asked", "told"), [("30", 30), ("0", 1), ("soon", 1), ("-5", 1)])
async def test_a_long_retry_after_is_for_the_caller(asked: str, told: float) -> None:
    """A long wait is not sat out but passed on; what is no number of seconds is not believed."""
    busy = Status(503, headers={"retry-after": asked})
    async with asyncio.timeout(GENEROUS):
        error = (await tell(busy, behavior={"max_retries": 1 if told > 2 else 0})).error
    assert error
    assert error.retry_after == told


@pytest.mark.parametrize("first", ["busy", "too long"])
async def test_who_can_never_answer_is_not_waited_for(first: str) -> None:
    """The wait is that of the candidate that may answer later, wherever it stands."""
    busy = Status(429, headers={"retry-after": "60"})
    long = Status(400, failure("too long", code="context_length_exceeded"))
    told = await tell(*((busy, long) if first == "busy" else (long, busy)))
    assert told.error
    assert told.error.retry_after == pytest.approx(60, abs=5)


async def test_an_unknown_model_is_not_to_be_asked_for_again_soon() -> None:
    """The caller hears how long it is left alone, unless another may be asked before."""
    alone, beside = await tell(Status(404)), await tell(Status(404), Status(503))
    assert alone.error
    assert alone.error.retry_after == pytest.approx(LONG_SECONDS, abs=5)
    assert beside.error
    assert beside.error.retry_after == 1


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
async def test_an_absurd_retry_after_does_no_harm(value: str) -> None:
    """Whatever an upstream writes, the caller gets the error that is meant."""
    told = await tell(Status(503, headers={"retry-after": value}))
    assert reason(told) == "UNAVAILABLE BACKENDS_UNAVAILABLE"


@pytest.mark.parametrize("code", [400, 401, 404, 413, 429, 500])
async def test_upstream_bodies_never_reach_the_caller(code: int) -> None:
    """An upstream's words stay out of every event and error."""
    told = await tell(Status(code, failure("INNER WORDS")), stream(failure("INNER WORDS")))
    assert told.error
    assert "INNER" not in told.everything


@pytest.mark.parametrize(
    "behaviour", [Wait(), stream(Wait()), stream(say("half"), Wait())], ids=repr
)
async def test_when_the_caller_leaves_the_upstream_is_left_too(behaviour: Behaviour) -> None:
    """A caller's leaving closes the upstream request long before any clock does."""
    async with chain(behaviour, answer()) as (client, servers):
        asking = asyncio.create_task(ask(client))
        async with asyncio.timeout(GENEROUS):
            while not servers[0].requests:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            asking.cancel()
            await servers[0].requests[0].left.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    assert not servers[1].requests


async def test_the_callers_deadline_bounds_all_attempts() -> None:
    """A deadline ends the call, leaves the upstreams, and starts no other attempt."""
    async with chain(Wait(), Wait(), behavior={"max_retries": 2}) as (client, servers):
        told = await ask(client, timeout=1.0)
        async with asyncio.timeout(GENEROUS):
            for server in servers:
                await server.requests[0].left.wait()
    assert told.error
    assert told.error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_nothing_is_kept_for_those_who_cannot_be_asked() -> None:
    """Candidates whose circuit is open get no share of the deadline: a healthy first one has it."""
    slow = stream(Wait(1.2), say("slow"), finish())
    once = {"max_retries": 0}
    async with chain(slow, Status(503), Status(503), behavior=once) as (client, servers):
        for name in ("second", "third"):
            for _ in range(3):
                await ask(client, preferences=pb.Preferences(model=name))
        told = await ask(client, timeout=2.4)
    assert (told.error, told.text) == (None, "slow")
    assert [len(server.requests) for server in servers] == [1, 3, 3]


@pytest.mark.parametrize(
    ("behavior", "text"), [({}, "second"), ({"timeout_seconds": 10}, "first")], ids=repr
)
async def test_a_provider_has_its_own_usual_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behavior: dict[str, Any], text: str
) -> None:
    """What the catalogue says of its first token holds unless the profile sets a timeout."""
    entry = {
        "name": "Hasty",
        "protocol": "openai_chat",
        "locality": "local",
        "key_required": False,
        "timeout_seconds": 0.4,
    }
    site = tmp_path / "providers.yaml"
    site.write_text(json.dumps({"providers": {"hasty": entry}}), encoding="utf-8")
    monkeypatch.setenv("SEMROUTE_PROVIDERS", str(site))
    late = stream(Wait(1.2), say("first"), finish())
    hasty = {"first": {"provider": "hasty"}}
    behavior = {"max_retries": 0, **behavior}
    async with chain(late, answer("second"), backends=hasty, behavior=behavior) as (client, _):
        told = await ask(client)
    assert (told.error, told.text) == (None, text)


async def test_a_longer_clock_of_the_first_token_is_enough() -> None:
    """Nothing else ends an answer whose first token may take its time."""
    late = stream(Wait(0.8), say("late"), finish())
    behavior = {"timeout_seconds": 0.3, "clocks": {"first_token": 5}}
    assert (await tell(late, behavior=behavior)).text == "late"


async def test_who_was_not_asked_is_named() -> None:
    """Whom a rate limit or a refused key keeps from being asked, without a word to any upstream."""
    busy = Status(429, headers={"retry-after": "60"})
    async with chain(busy) as (client, (server,)):
        first, again = await ask(client), await ask(client)
        assert len(server.requests) == 1
    assert first.error
    assert again.error
    assert "first: provider_rate_limit" in first.error.message
    assert "first: not asked, asked to be left alone for a while" in again.error.message
    async with chain(Status(401)) as (client, (server,)):
        await ask(client)
        again = await ask(client)
        assert len(server.requests) == 1
    assert again.error
    assert again.error.reason == "UPSTREAM_CREDENTIALS"
    assert "first: not asked, vllm refused the key" in again.error.message


@pytest.mark.parametrize(
    ("clocks", "steps"),
    [
        ({"idle_tokens": 0.5}, (say("whole"), finish())),
        ({"total": 0.5}, (say("whole"), finish())),
        ({"first_token": 0.5}, (finish(),)),
    ],
    ids=["idle_tokens", "total", "first_token"],
)
async def test_no_clock_spoils_what_is_whole(
    clocks: dict[str, float], steps: tuple[Step, ...]
) -> None:
    """After the word on how an answer ended only its usage is waited for, and not long."""
    told = await tell(stream(*steps, Wait()), behavior={"timeout_seconds": 9, "clocks": clocks})
    assert (told.finish.model, told.failures) == ("first", [])
    assert told.finish.usage.estimated


async def test_the_clock_of_the_whole_rings_for_a_slow_reader_too() -> None:
    """Also where the upstream is always ahead, so that nothing is ever waited for."""
    flood = stream(*[say("x" * 4000)] * 3000, finish(), DONE)
    behavior = {"timeout_seconds": 9, "clocks": {"total": 0.5}}
    async with upstream(flood) as server, running_server(profile(server, behavior=behavior)) as own:
        router, query = await own.server.ready(), Query((Message(Role.USER, ("hello",)),))
        read: list[Delta] = []

        async def slowly() -> None:
            async for event in router.complete(Ask(query)):
                read.extend([event] if isinstance(event, Delta) else [])
                await asyncio.sleep(0.1)

        with pytest.raises(StreamInterruptedError):
            await slowly()
        assert 0 < len(read) < 100


async def test_a_host_that_cannot_have_a_name_is_a_failure_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next candidate is asked."""
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    cloud = {"first": {"provider": "deepseek"}}
    governance = {"allow_cloud": True}
    async with (
        upstream(answer()) as second,
        routed(profile("https://a..b/v1", second, backends=cloud, governance=governance)) as client,
    ):
        told = await ask(client)
    assert told.failures == [("first", "PROVIDER_CONNECT")]
    assert told.finish.model == "second"


async def test_the_clock_is_of_silence_not_of_the_whole() -> None:
    """An answer may take longer than timeout_seconds as long as it goes on."""
    slow = [step for _ in range(5) for step in (say("a"), Wait(0.5))]
    told = await tell(stream(*slow, finish(), DONE), behavior={"timeout_seconds": 2})
    assert told.text == "aaaaa"
    assert told.finish.attempts[0].duration.ToTimedelta().total_seconds() > 2
