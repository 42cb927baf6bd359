"""Every fault through a real server: what the caller saw, and what the upstreams noted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest

from faulty import BEHAVIOR, CLOCKS, KEYS, QUESTION, calls, check, received, routed_to
from semroute.v1 import router_pb2 as pb
from semroute_service.faults import FAULTS, whole
from upstream import GENEROUS, Told, ask, nobody, outcome, profile, routed

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTAGE = 15
"""Requests in an outage."""
A_HANDFUL = 6
"""Calls that a dead upstream may get in all of them."""
LEAVING_SECONDS = 1.0
"""How soon an upstream is left after its caller has left."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


def reason(told: Told) -> str:
    """The status and reason of the error."""
    assert told.error
    return f"{told.error.code.name} {told.error.reason}"


class Before(NamedTuple):
    """A failure before the first token: its class, and how often the upstream is asked."""

    error_class: str
    calls: int
    alone: str = "UNAVAILABLE BACKENDS_UNAVAILABLE"
    """What the caller is told where nobody stands behind it."""


_PASSES = Before("PROVIDER_UNAVAILABLE", 3)
_CONNECTS = Before("PROVIDER_CONNECT", 3)
_SILENT = Before("PROVIDER_TIMEOUT", 1)
_STRANGE = Before("PROVIDER_PROTOCOL", 1)
_REFUSES_KEY = Before("PROVIDER_CREDENTIALS", 1, "UNAVAILABLE UPSTREAM_CREDENTIALS")
_TOO_LONG = Before("CALLER_CONTEXT_LENGTH", 1, "INVALID_ARGUMENT CONTEXT_LENGTH_EXCEEDED")
BEFORE: Mapping[str, Before] = {
    **dict.fromkeys(("408", "500", "502", "503", "504", "529", "error-in-200"), _PASSES),
    **dict.fromkeys(("reset", "hang-up", "cut-headers", "cut:0"), _CONNECTS),
    **dict.fromkeys(("silence", "slow-headers", "stall:0", "slow-first", "keep-alive"), _SILENT),
    **dict.fromkeys(("wrong-type", "not-streamed", "all-malformed", "megabyte-line"), _STRANGE),
    **dict.fromkeys(("401", "402", "403"), _REFUSES_KEY),
    **dict.fromkeys(("413", "context-length"), _TOO_LONG),
    "404": Before("PROVIDER_MODEL_NOT_FOUND", 1),
    "429": Before("PROVIDER_RATE_LIMIT", 3),
    "429-seconds:30": Before("PROVIDER_RATE_LIMIT", 1),
    "429-date:30": Before("PROVIDER_RATE_LIMIT", 1),
    "429-ms:30000": Before("PROVIDER_RATE_LIMIT", 1),
    "429-reset:6m0s": Before("PROVIDER_RATE_LIMIT", 1),
    "429-retry-delay:34s": Before("PROVIDER_RATE_LIMIT", 1),
}
"""What moves on to the next candidate."""


@pytest.mark.parametrize("model", BEFORE)
async def test_before_the_first_token_the_next_one_answers(model: str) -> None:
    """The caller gets the whole answer of the fallback, and the failures are on the record."""
    async with routed_to(model, "ok") as (client, servers):
        told = await ask(client)
    check(told, servers)
    expected = BEFORE[model]
    assert (told.text, told.finish.model) == (whole(QUESTION), "second")
    assert told.failures == [("first", expected.error_class)] * expected.calls
    assert calls(servers) == [expected.calls, 1]
    assert told.answer.restarts == 0


@pytest.mark.parametrize("model", BEFORE)
async def test_before_the_first_token_with_nobody_behind(model: str) -> None:
    """The caller is told what is wrong, as often as the profile allows it was tried, and no word
    of an answer came."""
    async with routed_to(model) as (client, servers):
        told = await ask(client, timeout=10)
    check(told, servers)
    expected = BEFORE[model]
    assert reason(told) == expected.alone
    assert told.text == ""
    assert told.failures == [("first", expected.error_class)] * expected.calls
    if "BACKENDS_UNAVAILABLE" in expected.alone:
        assert told.error
        assert told.error.retry_after
    if model.startswith("429-"):
        assert told.error
        assert told.error.retry_after
        assert told.error.retry_after > 25


FINAL: Mapping[str, tuple[str, str]] = {
    "400": ("CALLER_INVALID_REQUEST", "INVALID_ARGUMENT UPSTREAM_INVALID_REQUEST"),
    "422": ("CALLER_INVALID_REQUEST", "INVALID_ARGUMENT UPSTREAM_INVALID_REQUEST"),
    "content-filter": ("POLICY_CONTENT_FILTER", "FAILED_PRECONDITION CONTENT_FILTERED"),
    "filtered:0": ("POLICY_CONTENT_FILTER", "FAILED_PRECONDITION CONTENT_FILTERED"),
}
"""What no other candidate may make good."""


@pytest.mark.parametrize("model", FINAL)
async def test_what_is_the_callers_is_asked_once(model: str) -> None:
    """A malformed request and a filtered one are neither retried nor tried elsewhere."""
    async with routed_to(model, "ok") as (client, servers):
        told = await ask(client)
    check(told, servers)
    error_class, expected = FINAL[model]
    assert reason(told) == expected
    assert told.failures == [("first", error_class)]
    assert calls(servers) == [1, 0]


@pytest.mark.parametrize("model", ["content-filter", "filtered:0"])
async def test_a_filter_is_routed_around_where_the_profile_says_so(model: str) -> None:
    """With reroute_filtered the next candidate is asked; without it, see above."""
    async with routed_to(model, "ok", behavior={"reroute_filtered": True}) as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert told.finish.model == "second"
    assert told.failures == [("first", "POLICY_CONTENT_FILTER")]


class After(NamedTuple):
    """A failure after the first token: its class, and how many tokens came before."""

    error_class: str
    tokens: int


AFTER: Mapping[str, After] = {
    "cut:5": After("PROVIDER_INTERRUPTED", 5),
    "cut:1": After("PROVIDER_INTERRUPTED", 1),
    "cut-reset:5": After("PROVIDER_INTERRUPTED", 5),
    "truncated-json": After("PROVIDER_INTERRUPTED", 8),
    "no-end": After("PROVIDER_INTERRUPTED", 16),
    "only-done": After("PROVIDER_INTERRUPTED", 16),
    "endless:2000": After("PROVIDER_INTERRUPTED", 2000),
    "error-mid-stream:5": After("PROVIDER_UNAVAILABLE", 5),
    "stall:5": After("PROVIDER_TIMEOUT", 5),
}


@pytest.mark.parametrize("model", AFTER)
async def test_after_the_first_token_the_answer_ends_in_an_error(model: str) -> None:
    """Nothing is retried and nobody goes on in silence; what was used is estimated, not zero."""
    async with routed_to(model, "ok") as (client, servers):
        told = await ask(client)
    check(told, servers)
    expected = AFTER[model]
    assert reason(told) == "UNAVAILABLE STREAM_INTERRUPTED"
    assert whole(QUESTION, expected.tokens).startswith(told.text)
    assert told.text
    assert told.failures == [("first", expected.error_class)]
    assert calls(servers) == [1, 0]
    (attempt,) = told.answer.attempts
    assert attempt.HasField("time_to_first_token")
    assert attempt.usage.estimated
    assert attempt.usage.prompt_tokens
    assert attempt.usage.completion_tokens


@pytest.mark.parametrize("model", AFTER)
async def test_after_the_first_token_a_restart_may_be_allowed(model: str) -> None:
    """What came is discarded aloud, and the answer is the fallback's from its first word."""
    async with routed_to(model, "ok") as (client, servers):
        told = await ask(client, allow_restart=True)
    check(told, servers)
    expected = AFTER[model]
    assert (told.text, told.finish.model) == (whole(QUESTION), "second")
    assert told.answer.restarts == 1
    assert [outcome(a) for a in told.finish.attempts] == [
        ("first", expected.error_class),
        ("second", "OK"),
    ]
    assert calls(servers) == [1, 1]


WHOLE: Mapping[str, tuple[int, int]] = {
    # model: how many tokens, and how the answer ends
    "ok": (16, pb.FINISH_REASON_STOP),
    "ok:0": (0, pb.FINISH_REASON_STOP),
    "ok:5000": (5000, pb.FINISH_REASON_STOP),
    "slow:0.02": (16, pb.FINISH_REASON_STOP),
    "slow-first:0.2": (16, pb.FINISH_REASON_STOP),
    "keep-alive:0.2": (16, pb.FINISH_REASON_STOP),
    "malformed": (16, pb.FINISH_REASON_STOP),
    "no-done": (16, pb.FINISH_REASON_STOP),
    "flapping": (16, pb.FINISH_REASON_STOP),
    "random:0": (16, pb.FINISH_REASON_STOP),
    "length:5": (5, pb.FINISH_REASON_LENGTH),
    "filtered:5": (5, pb.FINISH_REASON_CONTENT_FILTER),
}


@pytest.mark.parametrize("model", WHOLE)
async def test_what_is_odd_and_whole_is_finished(model: str) -> None:
    """The first answers, all of it, at the first try, and finish says how it ended."""
    tokens, ending = WHOLE[model]
    async with routed_to(model, "ok") as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert told.text == whole(QUESTION, tokens)
    assert (told.finish.model, told.finish.reason) == ("first", ending)
    assert (told.failures, calls(servers)) == ([], [1, 0])
    assert told.finish.usage.completion_tokens == tokens
    assert not told.finish.usage.estimated


@pytest.mark.parametrize("behind", [(), ("ok",)], ids=["alone", "with a fallback"])
async def test_a_stumble_is_retried(behind: tuple[str, ...]) -> None:
    """One 500 is retried where it came from, and the fallback is not needed."""
    async with routed_to("500-once", *behind) as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert [outcome(a) for a in told.finish.attempts] == [
        ("first", "PROVIDER_UNAVAILABLE"),
        ("first", "OK"),
    ]
    assert told.text == whole(QUESTION)
    assert calls(servers)[1:] == [0] * len(behind)


SHORT: Mapping[str, float] = {
    "429-seconds:1": 1.0,
    "429-date:1": 0.0,  # until the next whole second
    "429-ms:250": 0.25,
    "429-reset:250ms": 0.25,
    "429-retry-delay:0.25s": 0.25,
}
"""Waits of at most two seconds."""


@pytest.mark.parametrize("behind", [(), ("ok",)], ids=["alone", "with a fallback"])
@pytest.mark.parametrize("model", SHORT)
async def test_a_short_wait_is_waited_for(model: str, behind: tuple[str, ...]) -> None:
    """The upstream that asked for it is asked again not before its time, and answers."""
    async with routed_to(model, *behind) as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert [outcome(a) for a in told.finish.attempts] == [
        ("first", "PROVIDER_RATE_LIMIT"),
        ("first", "OK"),
    ]
    assert told.text == whole(QUESTION)
    assert calls(servers) == [2, *([0] * len(behind))]
    first, second = servers[0].received
    assert second.at - first.at >= SHORT[model]


async def test_a_long_wait_is_waited_for_where_nobody_else_is_ready() -> None:
    """Over two seconds, nobody behind it and time enough: the only upstream is waited for."""
    async with routed_to("429-ms:2200") as (client, servers):
        told = await ask(client, timeout=20)
    check(told, servers)
    first, second = servers[0].received
    assert second.at - first.at >= 2.2
    assert told.text == whole(QUESTION)


async def test_a_long_wait_is_not_waited_for_where_the_deadline_is_nearer() -> None:
    """The caller is told at once when to come back, while the deadline still has its time."""
    async with routed_to("429-ms:2500") as (client, servers):
        told = await ask(client, timeout=1.5)
    check(told, servers)
    assert reason(told) == "UNAVAILABLE BACKENDS_UNAVAILABLE"
    assert told.error
    assert told.error.retry_after
    assert 1.5 < told.error.retry_after <= 2.5


async def test_who_asked_for_a_pause_gets_it_from_the_next_request_too() -> None:
    """While one upstream rests, later requests go to the other, and do not knock."""
    async with routed_to("429-reset:6m0s", "ok") as (client, servers):
        told = [await ask(client) for _ in range(5)]
    assert all(t.finish.model == "second" for t in told)
    assert calls(servers) == [1, 5]


@pytest.mark.parametrize(
    "model", ["503", "429", "reset", "hang-up", "silence", "error-in-200", "cut:0", "wrong-type"]
)
async def test_in_an_outage_the_dead_is_tried_a_handful_of_times(model: str) -> None:
    """Fifteen requests are all answered, and the dead primary is called six times, not 45."""
    async with routed_to(model, "ok") as (client, servers):
        told = [await ask(client) for _ in range(OUTAGE)]
    assert [t.text for t in told] == [whole(QUESTION)] * OUTAGE
    assert 1 <= calls(servers)[0] <= A_HANDFUL
    assert calls(servers)[1] == OUTAGE


async def test_in_an_outage_of_breaks_the_broken_is_left_alone() -> None:
    """Failures after the first token count as well: most of fifteen callers never meet them."""
    async with routed_to("cut:5", "ok") as (client, servers):
        told = [await ask(client) for _ in range(OUTAGE)]
    broken = [t for t in told if t.error]
    assert calls(servers)[0] == len(broken) <= A_HANDFUL
    assert all(reason(t) == "UNAVAILABLE STREAM_INTERRUPTED" for t in broken)
    assert all(t.text == whole(QUESTION) for t in told if not t.error)


async def test_where_nothing_listens_an_outage_is_the_same() -> None:
    """Refused connections open the circuit, too."""
    async with routed_to("ok") as (_, (spare,)):
        backends = {"second": {"provider": "openai_compatible"}}
        told_profile = profile(
            nobody(),
            spare.url,
            backends=backends,
            models={"second": {"id": "ok"}},
            behavior=BEHAVIOR,
        )
        async with routed(told_profile) as client:
            told = [await ask(client) for _ in range(OUTAGE)]
    assert [t.finish.model for t in told] == ["second"] * OUTAGE
    assert sum(len(t.failures) for t in told) <= A_HANDFUL


async def test_an_outage_of_all_ends_quickly_and_says_when_to_come_back() -> None:
    """With every circuit open, callers are refused without a call, and told how long to wait."""
    async with routed_to("503", "503") as (client, servers):
        told = [await ask(client) for _ in range(OUTAGE)]
    assert all(calls(servers)[i] <= A_HANDFUL for i in range(2))
    assert {reason(t) for t in told} == {"UNAVAILABLE BACKENDS_UNAVAILABLE"}
    assert all(t.error and t.error.retry_after for t in told)
    assert told[-1].failures == []


@pytest.mark.parametrize("model", ["401", "402", "403"])
async def test_a_key_that_was_refused_is_not_tried_again(model: str) -> None:
    """One call shows that the key is dead; later requests go elsewhere at once."""
    async with routed_to(model, "ok") as (client, servers):
        told = [await ask(client) for _ in range(4)]
        alone = await ask(client, preferences=pb.Preferences(model="first"))
    assert all(t.text == whole(QUESTION) for t in told)
    assert calls(servers) == [1, 4]
    assert reason(alone) == "UNAVAILABLE UPSTREAM_CREDENTIALS"


async def test_a_dead_key_is_its_own_providers_only() -> None:
    """Two upstreams refuse their keys; the third's is not thought less of."""
    async with routed_to("401", "403", "ok") as (client, servers):
        told = [await ask(client) for _ in range(3)]
    check(told[0], servers[:2])
    assert {t.finish.model for t in told} == {"third"}
    assert calls(servers) == [1, 1, 3]


async def test_a_model_that_is_not_there_is_not_asked_for_again() -> None:
    """After a 404 the model is absent, and another model of the same server is not."""
    async with routed_to("404", "ok") as (client, servers):
        told = [await ask(client) for _ in range(4)]
    assert all(t.text == whole(QUESTION) for t in told)
    assert calls(servers) == [1, 4]


async def test_what_is_too_long_goes_to_a_longer_context() -> None:
    """A candidate that holds no more than the one that was too short is not asked."""
    contexts = {"first": 8000, "second": 8000, "third": 32000}
    async with routed_to(
        "context-length", "ok", "ok", own={name: {"context": n} for name, n in contexts.items()}
    ) as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert told.finish.model == "third"
    assert told.failures == [("first", "CALLER_CONTEXT_LENGTH")]
    assert calls(servers) == [1, 0, 1]


async def test_a_server_that_says_it_is_not_well_is_asked_last() -> None:
    """Its health check speaks against it before any call does, and for it again when it is well."""
    async with routed_to("ok", "ok", probe_seconds=0.05) as (client, (first, second)):
        assert (await ask(client)).finish.model == "first"
        for healthy, expected in ((False, "second"), (True, "first")):
            first.healthy = healthy
            async with asyncio.timeout(GENEROUS):
                while (await ask(client)).finish.model != expected:
                    await asyncio.sleep(0.05)
        first.healthy = second.healthy = False
        await asyncio.sleep(0.3)  # some checks
        assert (await ask(client)).text == whole(QUESTION)


async def test_flapping_reaches_nobody() -> None:
    """An upstream that is up and down is retried, and every caller has a whole answer."""
    async with routed_to("flapping", "ok") as (client, servers):
        told = [await ask(client) for _ in range(6)]
    assert [t.text for t in told] == [whole(QUESTION)] * 6
    assert calls(servers)[0] > 6


@pytest.mark.parametrize(
    "model",
    ["silence", "slow-headers", "stall:0", "keep-alive", "slow-first", "stall:5", "slow:1"],
)
async def test_when_the_caller_leaves_the_upstream_is_left(model: str) -> None:
    """Within a second, whatever the upstream was doing, and nobody else is asked."""
    patient = {"clocks": {}, "timeout_seconds": 60}
    async with routed_to(model, "ok", behavior=patient) as (client, servers):
        asking = asyncio.create_task(ask(client))
        request = await received(servers[0])
        await asyncio.sleep(0.1)
        asking.cancel()
        async with asyncio.timeout(LEAVING_SECONDS):
            await request.over.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert request.left
        await asyncio.sleep(0.1)
    assert calls(servers) == [1, 0]


async def test_when_the_caller_leaves_an_endless_answer_ends() -> None:
    """Whoever stops reading what has no end is not read for."""
    async with routed_to("endless:1000000", "ok") as (client, servers):
        async with client.complete(QUESTION) as answer:
            async for _ in answer:
                break
        async with asyncio.timeout(LEAVING_SECONDS):
            await (await received(servers[0])).over.wait()
    assert servers[0].received[0].left


async def test_a_caller_who_leaves_is_not_held_against_the_upstream() -> None:
    """After many have left, the next one is still answered by the first."""
    async with routed_to("slow-first:0.3", "ok") as (client, servers):
        for number in range(1, 6):
            asking = asyncio.create_task(ask(client))
            await received(servers[0], number)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        told = await ask(client)
    assert told.finish.model == "first"
    assert calls(servers) == [6, 0]


@pytest.mark.parametrize("model", ["silence", "503", "cut:5", "429-reset:6m0s"])
async def test_a_caller_without_a_deadline_is_answered_all_the_same(model: str) -> None:
    """The profile's clocks bound what the caller does not, with a fallback and without one."""
    async with asyncio.timeout(GENEROUS):
        async with routed_to(model, "ok") as (client, servers):
            told = await ask(client, timeout=None)
        check(told, servers)
        assert told.text == whole(QUESTION) or reason(told).endswith("STREAM_INTERRUPTED")
        async with routed_to(model) as (client, servers):
            told = await ask(client, timeout=None)
        check(told, servers)
    assert told.error
    assert told.error.code is grpc.StatusCode.UNAVAILABLE


async def test_a_deadline_is_shared_by_those_who_may_be_asked() -> None:
    """Though its own clocks are long, a silent upstream leaves enough of the deadline for the
    fallback."""
    patient = {"clocks": {}, "timeout_seconds": 60}
    async with routed_to("silence", "ok", behavior=patient) as (client, servers):
        told = await ask(client, timeout=2)
    check(told, servers)
    assert told.finish.model == "second"
    assert told.failures == [("first", "PROVIDER_TIMEOUT")]


CLOCKED: Mapping[str, tuple[str, dict[str, float]]] = {
    # what stops: the model, and the clock that is to notice
    "headers": ("silence", {"headers": 0.3}),
    "headers byte by byte": ("slow-headers", {"headers": 0.3}),
    "first token": ("keep-alive", {"first_token": 0.3}),
    "idle bytes": ("stall:5", {"idle_bytes": 0.3}),
    "idle tokens": ("stall:5", {"idle_tokens": 0.3}),
    "total": ("slow:0.1", {"total": 0.5}),
    "total, endless": ("endless:1000000", {"total": 0.5}),
}


@pytest.mark.parametrize("what", CLOCKED)
async def test_each_clock_runs_by_itself(what: str) -> None:
    """With every other clock at half a minute, the one that is meant ends the attempt."""
    model, clock = CLOCKED[what]
    slow = dict.fromkeys(CLOCKS, 30.0) | clock
    async with routed_to(model, behavior={"clocks": slow}) as (client, servers):
        async with asyncio.timeout(GENEROUS):
            told = await ask(client)
    check(told, servers)
    assert told.error
    assert told.failures == [("first", "PROVIDER_TIMEOUT")]


async def test_comments_are_no_tokens() -> None:
    """Comments reset the clock of bytes and not that of tokens, so a queue is waited for as long
    as the first token's clock says."""
    clocks = CLOCKS | {"idle_bytes": 0.4, "first_token": 5.0}
    async with routed_to("keep-alive:1", behavior={"clocks": clocks}) as (client, servers):
        told = await ask(client)
    check(told, servers)
    assert told.text == whole(QUESTION)


async def test_a_slow_caller_slows_the_upstream_and_trips_no_clock() -> None:
    """While the caller does not read, the upstream is not read either, for longer than any clock;
    then all of it comes."""
    tokens = 25_000
    async with routed_to(f"wide:{tokens}") as (client, servers):
        deltas = []
        async with client.complete(QUESTION, timeout=60) as answer:
            async for delta in answer:
                deltas.append(delta.text)
                if len(deltas) == 1:
                    await asyncio.sleep(3 * CLOCKS["idle_tokens"])
                    assert servers[0].received[0].pieces < tokens
        assert answer.finish
    assert "".join(deltas).replace(".", "") == whole(QUESTION, tokens)


async def test_a_hedge_leaves_the_slow_one_within_a_second() -> None:
    """Where the profile asks for it a slow first token is answered by another, with its own key."""
    patient = {"hedge_after_seconds": 0.1, "clocks": {}, "timeout_seconds": 60}
    async with routed_to("slow-first:30", "ok", behavior=patient) as (client, servers):
        told = await ask(client)
        request = await received(servers[0])
        async with asyncio.timeout(LEAVING_SECONDS):
            await request.over.wait()
    check(told, servers)
    assert request.left
    assert told.finish.model == "second"
    assert told.failures == [("first", "SEMROUTE_HEDGED")]


async def test_no_upstream_is_asked_before_the_one_in_front_has_failed() -> None:
    """The log's times show one after the other, in the order of the decision."""
    async with routed_to("503", "stall:0", "ok") as (client, servers):
        told = await ask(client)
    check(told, servers)
    times = [[request.at for request in server.received] for server in servers]
    assert max(times[0]) < min(times[1])
    assert min(times[2]) - max(times[1]) > 0.9 * CLOCKS["first_token"]


def test_every_fault_is_here() -> None:
    """A fault that is added without a rule for it is noticed."""
    tried = {*BEFORE, *FINAL, *AFTER, *WHOLE, *SHORT}
    alone = {"500-once", "wide"}
    assert {model.partition(":")[0] for model in tried} | alone == set(FAULTS)
