"""The ``semroute`` command's client side: what it prints, and what it exits with."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import ParseDict

from semroute.v1 import router_pb2 as pb
from semroute_service.cli import main
from semroute_service.testing import ECHO_PROFILE, running_server
from upstream import nobody, profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Command = Callable[..., Awaitable["Ended"]]

QUERY = "write a python script"
CLOUD_PROFILE: dict[str, Any] = {
    "models": {
        "far": {"provider": "deepseek", "id": "deepseek-chat"},
        "further": {"provider": "openai", "id": "gpt"},
    },
    "routes": {"default": {"model": "far", "fallback_chain": ["further"]}},
    "governance": {"allow_cloud": True},
}
PRICED_PROFILE: dict[str, Any] = {
    "models": {"echo": {"provider": "echo", "price": {"input": 1, "output": 1_000}}},
    "routes": {"default": {"model": "echo"}},
}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest_asyncio.fixture
async def semroute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Command]:
    """Runs a command against a server that goes on serving meanwhile."""
    profiles = {
        "test": ECHO_PROFILE,
        "cloud": CLOUD_PROFILE,
        "priced": PRICED_PROFILE,
        "dead": profile(nobody()),
    }
    async with running_server(profiles=profiles) as server:
        monkeypatch.setenv("SEMROUTE_ADDRESS", server.address)

        async def run(*arguments: object) -> Ended:
            capsys.readouterr()
            status = await asyncio.to_thread(main, [str(argument) for argument in arguments])
            return Ended(status, *capsys.readouterr())

        yield run


async def test_decide_for_people(semroute: Command) -> None:
    """A decision is a few named lines: task, model, what stands behind it, and why."""
    ended = await semroute("decide", QUERY)
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["task", "model", "behind it", "why"]
    assert "code_generation, tier low, confidence" in lines[0]
    assert "echo on echo" in lines[1]


async def test_decide_explains(semroute: Command) -> None:
    """With --explain the revisions, every candidate and the evidence are shown as well."""
    ended = await semroute("decide", QUERY, "--explain")
    assert ended.status == 0
    for text in ("test (revision ", "hashing (utterances ", " ms of it embedding", "admitted"):
        assert text in ended.out
    evidence = ended.out.split("nearest utterances\n")[1].splitlines()
    assert evidence[0].split() == ["cosine", "task", "tier", "utterance"]
    assert evidence[2].split() == ["1.00", "code_generation", "low", *QUERY.split()]


async def test_decide_for_programs(semroute: Command) -> None:
    """With --json a decision is one line under the contract's own field names."""
    ended = await semroute("decide", QUERY, "--json")
    assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
    decision = ParseDict(ended.json, pb.Decision())
    assert decision.classification.task == "code_generation"
    assert {"profile_revision", "utterances_revision", "decided_at"} <= ended.json.keys()


async def test_a_query_from_standard_input(
    semroute: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dash reads the query from standard input, line breaks included."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUERY}\nplease"))
    ended = await semroute("complete", "-")
    assert (ended.status, ended.out) == (0, f"You said: {QUERY}\nplease\n")


async def test_complete_keeps_the_answer_apart(semroute: Command) -> None:
    """The answer alone is standard output; what is said of it goes to standard error."""
    ended = await semroute("complete", QUERY)
    assert (ended.status, ended.out) == (0, f"You said: {QUERY}\n")
    assert ended.err == "[echo on echo; stop; 6 tokens; 0.000000 USD]\n"
    cut = await semroute("complete", QUERY, "--max-tokens", 2, "--system", "be brief")
    assert (cut.status, cut.out) == (0, "You said:\n")
    assert cut.err == "[echo on echo; length; 2 tokens; 0.000000 USD]\n"


async def test_complete_for_programs(semroute: Command) -> None:
    """With --json every line is one event of the contract, in the order in which they come."""
    ended = await semroute("complete", QUERY, "--json")
    assert (ended.status, ended.err) == (0, "")
    decision, *deltas, finish = ended.lines
    assert "".join(line["delta"]["text"] for line in deltas) == f"You said: {QUERY}"
    assert decision["decision"]["model"] == "echo"
    assert finish["finish"]["reason"] == "FINISH_REASON_STOP"


async def test_attempts_that_failed_are_told(semroute: Command) -> None:
    """--explain shows them where there is no answer, too."""
    ended = await semroute("complete", QUERY, "--profile", "dead", "--explain")
    assert (ended.status, ended.out) == (1, "")
    assert "attempts" in ended.err.splitlines()
    assert "provider_connect" in ended.err.partition("\nattempts\n")[2]


async def test_a_denial_lists_every_candidate(semroute: Command) -> None:
    """Where nothing may answer, each candidate is named with its reason and its rule."""
    for command in ("decide", "complete"):
        ended = await semroute(command, QUERY, "--profile", "cloud", "--local-only")
        assert (ended.status, ended.out.strip()) == (1, "")
        assert ended.err.splitlines() == [
            "semroute: NO_COMPLIANT_MODEL:",
            "  far: the caller allows local models only (rule local_only)",
            "  further: the caller allows local models only (rule local_only)",
        ]
    ended = await semroute("decide", QUERY, "--profile", "cloud", "--json")
    error = ended.json["error"]
    assert (ended.status, error["code"], error["reason"]) == (
        *(1, "FAILED_PRECONDITION"),
        "NO_COMPLIANT_MODEL",
    )
    assert [(v["subject"], v["rule"]) for v in error["violations"]] == [
        ("far", "no_credentials"),
        ("further", "no_credentials"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "nope"], 'UNKNOWN_PROFILE: there is no profile "nope"'),
        (["--model", "nope"], 'UNKNOWN_MODEL: profile "test" has no model "nope"'),
        (["--profile", "priced", "--max-cost", "0.0001"], "(rule max_cost)"),
        (["--max-cost", "-1"], "INVALID_REQUEST: preferences.max_cost_nano_usd"),
        (["--profile", "dead"], "BACKENDS_UNAVAILABLE: "),
        (["--server", nobody()[len("http://") : -len("/v1")]], "; start one: semroute serve"),
    ],
    ids=["profile", "model", "cost", "field", "backend", "server"],
)
async def test_failures_are_told(semroute: Command, arguments: list[str], message: str) -> None:
    """A call that fails ends with status 1 and a sentence that says what to do."""
    ended = await semroute("complete", QUERY, *arguments)
    assert (ended.status, ended.out) == (1, "")
    assert message in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["decide"],
        ["decide", QUERY, "--batch", "in.jsonl"],
        ["decide", "--batch", "in.jsonl"],
        ["decide", QUERY, "--max-cost", "nan"],
        ["complete"],
        ["complete", QUERY, "--max-tokens", "99999999999"],
        ["complete", "\udcff"],
    ],
    ids=" ".join,
)
async def test_wrong_usage(semroute: Command, arguments: list[str]) -> None:
    """What cannot be asked is refused with status 2 before anything is asked."""
    ended = await semroute(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("semroute: ")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


async def test_a_batch(semroute: Command, tmp_path: Path) -> None:
    """Every line that is not blank gets its own line, in order, wrong ones an error in place."""
    source = written(
        tmp_path / "in.jsonl",
        json.dumps({"query": QUERY, "tenant": "lab", "profile": None}),
        json.dumps("tell me a joke"),
        "",
        "{broken",
        '{"query": "hello", "profile": "nope"}',
        '"two lines\u2028in one text"',
        '{"query": "hello", "profile": "cloud", "local_only": true}',
    )
    out = tmp_path / "out.jsonl"
    ended = await semroute("decide", "--batch", source, "--out", out)
    assert (ended.status, ended.out, ended.err) == (1, "", f"3 decided, 3 failed: {out}\n")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").strip().split("\n")]
    assert [row["query"] for row in rows] == [
        *(QUERY, "tell me a joke", "{broken", "hello", "two lines\u2028in one text", "hello"),
    ]
    assert [row.get("error", {}).get("reason") for row in rows] == [
        *(None, None, "INVALID_REQUEST", "UNKNOWN_PROFILE", None, "NO_COMPLIANT_MODEL"),
    ]
    first, second = rows[:2]
    assert (first["task"], first["tier"], first["matched"]) == ("code_generation", "low", True)
    assert (first["profile"], first["model"], first["local"]) == ("test", "echo", True)
    assert (second["task"], second["tier"], second["matched"]) == (None, None, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("17", 'must be a JSON string, or an object with "query"'),
        ('{"profile": "test"}', 'must be a JSON string, or an object with "query"'),
        ('{"query": "q", "colour": "red"}', "unknown key colour; known: local_only, max_cost"),
        ('{"query": "q", "max_cost": "1"}', "max_cost must be a number"),
        ('{"query": "q", "max_cost": 1e400}', "cannot convert float infinity"),
        ('{"query": "q", "local_only": "false"}', "local_only must be true or false"),
        ('{"query": "q", "sensitivity": 3}', "sensitivity must be text"),
        ('{"query": "q", "sensitivity": "secret"}', "SENSITIVITY_SECRET"),
        ('{"query": "\\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "recursion"),
    ],
    ids=lambda value: value[:40],
)
async def test_a_wrong_line_stands_alone(
    semroute: Command, tmp_path: Path, line: str, message: str
) -> None:
    """A line that cannot be asked is told in its place, and the others are decided."""
    source = written(tmp_path / "in.jsonl", line, json.dumps(QUERY))
    out = tmp_path / "out.jsonl"
    ended = await semroute("decide", "--json", "--batch", source, "--out", out)
    assert (ended.status, ended.json) == (1, {"decided": 1, "failed": 1})
    wrong, right = (json.loads(text) for text in out.read_text(encoding="utf-8").splitlines())
    assert (wrong["query"], wrong["error"]["code"]) == (line, "INVALID_ARGUMENT")
    assert message in wrong["error"]["message"]
    assert right["task"] == "code_generation"


async def test_a_large_batch_keeps_its_order(semroute: Command, tmp_path: Path) -> None:
    """More lines than one call takes are all decided, in order, by the command line's options."""
    queries = [f"write python script number {i}" for i in range(250)]
    source = written(tmp_path / "in.jsonl", *map(json.dumps, queries))
    out = tmp_path / "out.jsonl"
    ended = await semroute("decide", "--profile", "priced", "--batch", source, "--out", out)
    assert (ended.status, ended.err) == (0, f"250 decided, 0 failed: {out}\n")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["query"] for row in rows] == queries
    assert {row["profile"] for row in rows} == {"priced"}


async def test_a_batch_appears_whole_or_not_at_all(semroute: Command, tmp_path: Path) -> None:
    """Where no server answers, the output of an earlier run stays as it was."""
    source = written(tmp_path / "in.jsonl", json.dumps(QUERY))
    out = written(tmp_path / "out.jsonl", "of an earlier run")
    address = nobody().split("/")[2]
    ended = await semroute("decide", "--server", address, "--batch", source, "--out", out)
    assert (ended.status, ended.out) == (1, "")
    assert f"no server answers at {address}" in ended.err
    assert out.read_text() == "of an earlier run\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


async def test_a_batch_that_cannot_be_read_or_written(semroute: Command, tmp_path: Path) -> None:
    """A file that is not there, and a place that cannot be written, are told by name."""
    source = written(tmp_path / "in.jsonl", json.dumps(QUERY))
    (tmp_path / "folder").mkdir()
    for read, write, message in (
        (tmp_path / "nothing", tmp_path / "out", f"{tmp_path}/nothing"),
        (source, tmp_path / "nowhere" / "out", f"{tmp_path}/nowhere/out: No such file"),
        (source, tmp_path / "folder", f"{tmp_path}/folder: Is a directory"),
    ):
        ended = await semroute("decide", "--batch", read, "--out", write)
        assert (ended.status, ended.out) == (1, "")
        assert message in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.jsonl"]
