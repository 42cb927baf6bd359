"""The whole record of a routing: for callers who ask for it, and in the log of operators who do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from processes import run
from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.cli import main
from semroute_service.testing import ECHO_PROFILE, UTTERANCES, running_server, write_files
from test_serve import HERE, PROGRAM, serving
from upstream import GENEROUS, Status, Wait, answer, ask, profile, routed, say, stream, upstream

if TYPE_CHECKING:
    from pathlib import Path

    from upstream import Upstream

SECRET = "xyzzyplugh"
SESSION = "session-of-ada"
QUERY = "write a python script"
NAMED = {
    *("id", "task", "tier", "profile", "primary_model", "fallback_chain", "model", "provider"),
    *("fallback_depth", "latency_ms", "reason"),
}
"""What the record of a decision must have."""


def screened(first: Upstream, second: Upstream) -> dict[str, Any]:
    """A profile whose first choice is in the cloud, where nothing may go."""
    models = {"far": {"provider": "deepseek", "id": "deepseek-chat"}}
    made = profile(first, second)
    row = {"tiers": {"low": ["far", "first"]}, "fallback_chain": ["second"]}
    return {
        **made,
        "models": {**made["models"], **models},
        "routes": {"code_generation": row, "default": {"model": "first"}},
    }


def records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Every line of the routing log, and there is nothing else in it."""
    lines = [r.getMessage() for r in caplog.records if r.name == "semroute.routing"]
    assert all("\n" not in line for line in lines)
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def _all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


# ---- the operator's log


async def test_the_record_of_a_decision(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that the decision says of the choice, in one object."""
    async with (
        upstream() as first,
        upstream() as second,
        routed(screened(first, second), debug_routing=True) as client,
    ):
        decision = await client.decide(QUERY)
    (record,) = records(caplog)
    assert record.keys() >= NAMED
    for name in ("id", "profile", "profile_revision", "route", "provider", "backend", "reason"):
        assert record[name] == getattr(decision, name)
    assert (record["rpc"], record["outcome"]) == ("Decide", "decided")
    assert (record["task"], record["tier"]) == ("code_generation", "low")
    assert (record["primary_model"], record["model"], record["provider"]) == (
        *("far", "first"),
        "vllm",
    )
    assert (record["fallback_chain"], record["fallback_depth"]) == (["second"], 1)
    assert record["latency_ms"] >= record["decided_ms"] > 0
    assert "answered_by" not in record


async def test_the_record_of_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """One record, at the end: who was tried, how each attempt ended, and who answered."""
    async with (
        upstream(Status(500)) as first,
        upstream() as second,
        routed(screened(first, second), debug_routing=True) as client,
    ):
        told = await ask(client, QUERY)
        assert told.answer.decision
    (record,) = records(caplog)
    assert record.keys() >= NAMED
    assert record["id"] == told.answer.decision.id
    assert (record["rpc"], record["outcome"]) == ("Complete", "answered")
    assert (record["model"], record["answered_by"]) == ("first", "second")
    attempts = [(a["model"], a["outcome"], a["error_class"]) for a in record["attempts"]]
    assert attempts == [("first", "failed", "provider_unavailable"), ("second", "succeeded", None)]
    failed, answered = record["attempts"]
    assert failed["first_token_ms"] is None
    assert 0 < answered["first_token_ms"] <= answered["duration_ms"]
    assert failed["started_at"] < answered["started_at"]
    assert answered["usage"]["completion_tokens"] == told.finish.usage.completion_tokens > 0
    assert answered["cost_nano_usd"] == told.finish.attempts[1].cost_nano_usd
    assert record["finish_reason"] == "stop"


async def test_the_records_of_failures(caplog: pytest.LogCaptureFixture) -> None:
    """A denial says which rule denied whom; an answer that failed has its attempts."""
    async with upstream(Status(500)) as first, routed(profile(first), debug_routing=True) as client:
        needs = pb.Preferences(required_capabilities=[pb.CAPABILITY_EMBEDDING])
        with pytest.raises(RouterError):
            await client.decide(QUERY, preferences=needs)
        assert (await ask(client, QUERY)).error
    denied, failed = records(caplog)
    assert (denied["outcome"], denied["error"]) == ("failed", "NoCompliantModelError")
    assert "first does not declare embedding" in denied["message"]
    assert "model" not in denied
    assert (failed["outcome"], failed["error"]) == ("failed", "UnavailableError")
    assert (failed["model"], failed["answered_by"]) == ("first", None)
    assert [a["error_class"] for a in failed["attempts"]] == ["provider_unavailable"]


async def test_the_record_of_a_caller_who_left(caplog: pytest.LogCaptureFixture) -> None:
    """It says so, and what the attempt came to."""
    forever = stream(say("word"), Wait())
    async with upstream(forever) as first, routed(profile(first), debug_routing=True) as client:
        async with client.complete(QUERY) as half:
            async for _ in half:
                break
        async with asyncio.timeout(GENEROUS):
            while not records(caplog):
                await asyncio.sleep(0.02)
    (record,) = records(caplog)
    assert (record["outcome"], record["answered_by"]) == ("cancelled", None)
    assert [a["outcome"] for a in record["attempts"]] == ["cancelled"]


async def test_every_item_of_a_batch_has_a_record(caplog: pytest.LogCaptureFixture) -> None:
    """Each with the id of its decision."""
    async with routed(ECHO_PROFILE, debug_routing=True) as client:
        found = await client.batch_decide([QUERY] * 3)
    ids = [one.id for one in found if isinstance(one, pb.Decision)]
    assert [record["id"] for record in records(caplog)] == ids


async def test_pins_are_in_the_record(caplog: pytest.LogCaptureFixture) -> None:
    """Whether the session held the choice, and where its pin came from; never the session's id."""
    async with (
        upstream(Status(500)) as first,
        upstream() as second,
        routed(profile(first, second), debug_routing=True) as client,
    ):
        await ask(client, QUERY, session_id=SESSION)
        await client.decide(QUERY, session_id=SESSION)
        await client.end_session(SESSION)
        with pytest.raises(RouterError):
            await client.end_session(SESSION)
    new, held = records(caplog)
    assert (new["pinned"], new["pin_moved_from"]) == (False, "")
    assert (held["pinned"], held["pin_moved_from"], held["model"]) == (True, "first", "second")
    assert SESSION not in caplog.text


async def test_without_the_flag_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not even where the caller asks for an explanation: that is in the answer."""
    async with routed(ECHO_PROFILE) as client:
        await client.decide(QUERY, preferences=pb.Preferences(explain=True))
        await ask(client, QUERY)
    assert records(caplog) == []


async def test_no_text_is_in_a_record(caplog: pytest.LogCaptureFixture) -> None:
    """No prompt, no answer and no upstream's words, whatever the outcome."""
    refused = Status(500, {"error": {"message": SECRET}})
    async with (
        upstream(answer(SECRET), refused) as first,
        routed(profile(first), debug_routing=True) as client,
    ):
        query = f"{QUERY} about {SECRET}"
        assert (await ask(client, query)).text == SECRET
        assert (await ask(client, query)).error
        await client.decide([pb.Message(role=pb.ROLE_USER, text=query)])
        with pytest.raises(RouterError):
            await client.decide([pb.Message(text=query)])
    assert len(records(caplog)) == 3
    assert SECRET not in caplog.text


@pytest.mark.parametrize("value", ["1", "true"])
async def test_the_environment_turns_it_on(tmp_path: Path, value: str) -> None:
    """SEMROUTE_DEBUG_ROUTING logs a JSON object a line, also where little else is logged."""
    write_files(tmp_path / "profiles", {"development": ECHO_PROFILE})
    write_files(tmp_path / "utterances", UTTERANCES)
    env = {"SEMROUTE_DEBUG_ROUTING": value}
    arguments = (*HERE, "--log-level", "error", "--profile", "development")
    async with serving(tmp_path, *arguments, env=env) as served:
        async with RouterClient(await served.address()) as client:
            decision = await client.decide(f"{QUERY} about {SECRET}", session_id=SESSION)
        assert await served.end() == 0
    (line,) = served.log.splitlines()
    assert json.loads(line)["id"] == decision.id
    assert SECRET not in line
    assert SESSION not in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DEBUG_ROUTING", "loud", "SEMROUTE_DEBUG_ROUTING must be 1 or 0"),
        ("SESSION_IDLE", "0", "the idle time of a session must be over 0 seconds"),
        ("SESSION_IDLE", "nan", "the idle time of a session must be over 0 seconds"),
        ("SESSION_IDLE", "soon", "argument --session-idle: invalid float value: 'soon'"),
    ],
)
async def test_a_wrong_setting_is_told(tmp_path: Path, name: str, value: str, message: str) -> None:
    """A twin is looked at before anything is served."""
    env = {**os.environ, f"SEMROUTE_{name}": value}
    ended = await run(*PROGRAM, *HERE, cwd=tmp_path, env=env)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err


# ---- the caller's own


async def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command against a server with a screened profile, whose first backend fails."""
    async with (
        upstream(Status(500)) as first,
        upstream() as second,
        running_server(screened(first, second)) as server,
    ):
        capsys.readouterr()
        command = [*arguments, "--server", server.address]
        status = await asyncio.to_thread(main, command)
        return (status, *capsys.readouterr())


async def test_decide_explains_the_whole_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Task, tier, profile, primary, chain, choice, provider, depth, time and reason."""
    status, out, err = await explained(capsys, "decide", QUERY, "--explain")
    assert (status, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines())
    assert "code_generation, tier low" in lines["task"]
    assert lines["model"] == "first on first"
    assert lines["provider"] == "vllm"
    assert lines["primary"] == "far, fallback depth 1"
    assert lines["behind"].endswith("second")
    assert lines["profile"].startswith("test (revision ")
    assert " ms, " in lines["took"]
    assert "first (local) answers; denied: far" in out


@pytest.mark.parametrize("command", ["decide", "complete"])
async def test_json_has_the_whole_record(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Every field has its key, also where it is empty, false or zero."""
    status, out, err = await explained(capsys, command, QUERY, "--json", "--explain")
    assert (status, err) == (0, "")
    found = json.loads(out.splitlines()[0])
    decision = found["decision"] if command == "complete" else found
    assert (decision["primary_model"], decision["fallback_depth"]) == ("far", 1)
    assert (decision["pinned"], decision["pin_moved_from"]) == (False, "")
    assert decision.keys() >= (NAMED - {"task", "tier", "latency_ms"}) | {"elapsed"}
    assert decision["classification"].keys() >= {"task", "tier"}
    assert len(decision["classification"]["matches"]) > 5


async def test_complete_explains_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer alone is standard output; decision and attempts go to standard error."""
    status, out, err = await explained(capsys, "complete", QUERY, "--explain")
    assert (status, out) == (0, "well\n")
    for text in ("primary    far, fallback depth 1", "candidates", "nearest utterances"):
        assert text in err
    attempts = [line.split() for line in err.split("attempts\n")[1].splitlines()[2:]]
    assert [(row[0], row[3]) for row in attempts] == [
        ("first", "provider_unavailable"),
        ("second", "answered"),
    ]


async def test_complete_explains_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the flag one line is said of the answer."""
    status, out, err = await explained(capsys, "complete", QUERY)
    assert (status, out, err.count("\n")) == (0, "well\n", 1)
