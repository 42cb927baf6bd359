"""The Snakemake rule, run by a real Snakemake against a real server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import Ended, run

if TYPE_CHECKING:
    from semroute_service.testing import RunningServer

SNAKEFILE = Path(__file__).parents[1] / "clients" / "snakemake" / "Snakefile"
BIN = Path(sys.executable).parent

QUERIES: list[Any] = [
    {"query": "what does this gene do", "tenant": "lab", "local_only": True},
    "write a python script",
    {"query": "tell me a joke"},
    {"query": "interpret the variants of this patient's genome", "sensitivity": "restricted"},
]


async def test_the_rule_routes_a_file_in_order(echo_server: RunningServer, tmp_path: Path) -> None:
    """Every query has its decision in the output, in the order of the input."""
    ended = await _snakemake(tmp_path, QUERIES, echo_server.address)
    assert ended.status == 0, ended.err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["query"], row["task"], row["tier"]) for row in rows] == [
        ("what does this gene do", "biomedical", "low"),
        ("write a python script", "code_generation", "low"),
        ("tell me a joke", None, None),
        ("interpret the variants of this patient's genome", "biomedical", "high"),
    ]
    assert all(row["model"] == "echo" and row["local"] for row in rows)


async def test_a_denied_query_fails_the_rule(echo_server: RunningServer, tmp_path: Path) -> None:
    """Nothing downstream can run on a file in which a decision is missing."""
    queries = ["write a python script", {"query": "hello", "model": "no_such_model"}]
    ended = await _snakemake(tmp_path, queries, echo_server.address)
    assert ended.status == 1
    assert "1 decided, 1 failed" in ended.err
    assert not (tmp_path / "out.jsonl").exists()


async def _snakemake(folder: Path, queries: list[Any], address: str) -> Ended:
    lines = [json.dumps(query) + "\n" for query in queries]
    (folder / "in.jsonl").write_text("".join(lines))
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return await run(
        BIN / "snakemake",
        *("--snakefile", SNAKEFILE, "--directory", folder, "--cores", "1"),
        *("--config", f"server={address}", "queries=in.jsonl", "out=out.jsonl"),
        env=os.environ | home | {"PATH": path},
    )
