"""Launch recipes: which servers, with which arguments, and whether they fit their GPUs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from recipe_profiles import SEVEN, backend, loaded, serving, sharing
from semroute_service.recipes import RecipeError, plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from semroute_service.recipes import Plan


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[dict[str, Any]], Plan]:
    """The plan of a profile."""
    return lambda profile: plan(loaded(tmp_path, profile))


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """Why there is no plan of a profile."""

    def refused(profile: dict[str, Any]) -> tuple[str, ...]:
        with pytest.raises(RecipeError) as caught:
            plan(loaded(tmp_path, profile))
        return caught.value.problems

    return refused


BASE = ["org/coder", "--max-model-len", "32768", "--gpu-memory-utilization", "0.9"]
CACHING = ["--enable-prefix-caching"]


@pytest.mark.parametrize(
    ("gpu", "quantization", "expected"),
    [
        ("T4", "awq", ["--dtype", "float16", "--quantization", "awq"]),
        ("L4", "awq", ["--quantization", "awq_marlin"]),
        ("T4", "gptq", ["--dtype", "float16", "--quantization", "gptq"]),
        ("H100", "gptq", ["--quantization", "gptq_marlin"]),
        ("T4", "int8", ["--dtype", "float16", "--quantization", "compressed-tensors"]),
        ("L4", "fp8", ["--quantization", "fp8"]),
        ("H100", "fp16", ["--dtype", "float16"]),
        ("H100", "bf16", ["--dtype", "bfloat16"]),
        ("H100", "", []),
    ],
)
def test_arguments_by_gpu_and_quantisation(
    planned: Callable[[dict[str, Any]], Plan], gpu: str, quantization: str, expected: list[str]
) -> None:
    """vLLM is told the number format that the GPU has and the kernels that run on it."""
    (server,) = planned(serving(gpu=gpu, quantization=quantization)).servers
    assert list(server.arguments) == [BASE[0], *expected, *BASE[1:], *CACHING]


def test_arguments_of_everything_declared(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Split, cache, adapters, draft model and further arguments become vLLM's own."""
    serve = {
        "weights": "models/mine",
        "gpu_memory_utilization": 0.8,
        "kv_cache_dtype": "fp8",
        "prefix_caching": False,
        "lora": {"sql": "models/sql", "r": "org/r-lora"},
        "draft": {**SEVEN, "id": "org/draft", "tokens": 3, "parameters": 0.6, "unquantized": 0.2},
        "arguments": ["--max-num-seqs", "64"],
    }
    (server,) = planned(serving(serve, gpu="L4", count=2)).servers
    speculative = {"method": "draft_model", "model": "org/draft", "num_speculative_tokens": 3}
    assert server.arguments == (
        *("models/mine", "--served-model-name", "org/coder", "--quantization", "awq_marlin"),
        *("--tensor-parallel-size", "2", "--max-model-len", "32768"),
        *("--gpu-memory-utilization", "0.8", "--no-enable-prefix-caching"),
        *("--kv-cache-dtype", "fp8", "--enable-lora"),
        *("--lora-modules", "sql=models/sql", "r=org/r-lora"),
        *("--speculative-config", json.dumps(speculative), "--max-num-seqs", "64"),
    )


def test_arguments_of_an_embedding_model(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """An embedding model is pooled, has no KV cache and needs no figures of one."""
    profile = serving(quantization="fp16", kind="embedding", context=8192)
    profile["models"]["coder"]["serve"] = {"parameters": 0.57}
    (server,) = planned(profile).servers
    assert server.arguments[-2:] == ("--runner", "pooling")
    assert server.need.cache_gb == 0


def test_memory_by_hand(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Weights, cache and overhead of one GPU are what one computes from the model's page."""
    need = next(planned(serving()).servers).need
    # (7.62 - 1.09) billion of 4 + 20/128 bits, 1.09 billion of 16: the files have 5.57 GB.
    assert need.weights_gb == pytest.approx(3.3926 + 2.18, abs=1e-3)
    # Keys and values, 28 layers, 4 heads of 128 numbers of 2 bytes: 57,344 bytes a token.
    assert need.cache_gb == pytest.approx(57344 * 32768 / 1e9)
    assert need.available_gb == pytest.approx(14.4)
    assert need.total_gb == pytest.approx(5.5726 + 1.8790 + 1.5, abs=1e-3)


def test_memory_over_several_gpus(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Weights and heads are split, but no GPU has less than one head; fp8 halves the cache."""
    two = next(planned(serving(gpu="L4", count=2)).servers).need
    eight = next(planned(serving({"kv_cache_dtype": "fp8"}, gpu="L4", count=8)).servers).need
    assert two.weights_gb == pytest.approx(5.5726 / 2, abs=1e-3)
    assert two.cache_gb == pytest.approx(57344 / 2 * 32768 / 1e9)
    assert eight.cache_gb == pytest.approx(57344 / 4 / 2 * 32768 / 1e9)


def test_memory_of_a_draft_model(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """A draft model is there at 16 bits, with a cache of its own."""
    draft = {**SEVEN, "id": "org/draft", "parameters": 1.0, "unquantized": 0}
    alone = next(planned(serving(gpu="L4")).servers).need
    drafted = next(planned(serving({"draft": draft}, gpu="L4")).servers).need
    assert drafted.weights_gb - alone.weights_gb == pytest.approx(2.0)
    assert drafted.cache_gb == pytest.approx(2 * alone.cache_gb)


def test_too_large_is_refused_with_what_would_fit(
    problems: Callable[[dict[str, Any]], tuple[str, ...]],
) -> None:
    """What does not fit is told with its figures and every single change that would do."""
    (told,) = problems(serving(quantization="fp16", gpu="L4", context=131072))
    # 7.62 * 2 = 15.24 GB, 57344 * 131072 = 7.52 GB; 24 * 0.9 = 21.6 GB.
    assert told.startswith(
        "models.coder: does not fit 1 L4: 15.2 GB weights + 7.5 GB KV cache for 131072 tokens "
        "+ 1.5 GB overhead = 24.3 GB a GPU, of 21.6 GB; would fit: "
    )
    # (21.6 - 15.24 - 1.5) * 10**9 / 57344 = 84,751 tokens, in steps of 256.
    assert told.endswith(
        "a context of 84736 or kv_cache_dtype: fp8 or 2 GPUs with tensor_parallel: 2 or "
        "a checkpoint with quantization: int8"
    )
    (told,) = problems(serving({"parameters": 7000}, quantization="fp16"))
    assert told.endswith("; take a smaller model or larger GPUs")


def test_what_is_advised_does_fit(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Each remedy of the case above, applied, makes a plan."""
    full: dict[str, Any] = {"gpu": "L4", "quantization": "fp16", "context": 131072}
    for profile in (
        serving(**{**full, "context": 84736}),
        serving({"kv_cache_dtype": "fp8"}, **full),
        serving({"tensor_parallel": 2}, count=2, **full),
        serving(**{**full, "quantization": "int8"}),
    ):
        assert list(planned(profile).servers)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (serving({"kv_cache_dtype": "fp8"}), "fp8 needs a GPU of compute capability 8.9; T4 has"),
        (
            serving({"parameters": 3.0}, quantization="bf16"),
            "bf16 needs a GPU of compute capability 8.0",
        ),
        (serving(quantization="awk"), '"awk" is not known; did you mean "awq"?'),
        (serving(gpu="T5"), 'my-coder.gpu.type: "T5" is not known'),
        (serving(gpu="A100"), "gpu.memory_gb: is required, since A100 is sold with various"),
        (serving(context=None), "models.coder.context: is required"),
        (serving(id=""), "models.coder.id: is required"),
        (serving({"tensor_parallel": 2}), "is more than the 1 GPUs of its backend"),
        (serving({"head_dim": None}), "coder.serve: needs head_dim, which tell the size"),
        (serving({"arguments": ["--port=1"]}), "arguments: --port is set from the profile's"),
        (serving({"arguments": ["--max_model_len"]}), "arguments: --max-model-len is set"),
        (serving({"arguments": ["--api-key", "secret"]}), "a key is no argument; set VLLM_API_KEY"),
        (serving({"weights": "--x"}), 'vLLM would read "--x" as an option'),
        (sharing(0.5, 0.3, 0.2), "0.5 (a) + 0.3 (b) + 0.2 (c) = 1; together at most 0.95"),
    ],
)
def test_refused(
    problems: Callable[[dict[str, Any]], tuple[str, ...]], profile: dict[str, Any], expected: str
) -> None:
    """What cannot run is refused with where it stands and what would be right."""
    (told,) = problems(profile)
    assert expected in told
    assert "secret" not in told


def test_refused_backends(problems: Callable[[dict[str, Any]], tuple[str, ...]]) -> None:
    """A backend serves one model, knows its GPU, is vLLM, and shares a GPU as declared."""
    twice = serving()
    twice["models"]["other"] = twice["models"]["coder"]
    assert problems(twice) == (
        'backends: coder and other would both have a server called "my-coder"; rename one',
    )
    bare = serving()
    del bare["backends"]["my-coder"]["gpu"]
    assert problems(bare) == (
        "backends.my-coder.gpu: is required to launch coder: its type and count",
    )
    ollama = serving()
    ollama["backends"]["my-coder"]["provider"] = "ollama"
    assert problems(ollama) == ("models.coder.serve: my-coder is no vLLM server",)
    unlike = sharing(0.4, 0.4)
    unlike["backends"]["on-b"]["gpu"]["count"] = 2
    assert problems(unlike) == ("backends: the GPU the-one is not declared alike everywhere",)
    nothing = serving()
    del nothing["models"]["coder"]["serve"]
    assert problems(nothing) == ("mine: no model has a serve part, so there is nothing to launch",)


def test_servers_on_one_gpu_are_one_job(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """They are started by one script on the same device, each with a port of its own."""
    (job,) = planned(sharing(0.5, 0.4)).jobs
    assert (job.name, job.devices) == ("the-one", (0,))
    assert [(s.name, s.port) for s in job.servers] == [("on-a", 8000), ("on-b", 8001)]


def test_devices_are_counted_by_type(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """Jobs on one machine do not get the same GPUs."""
    profile = serving(gpu="L4", count=2)
    for name, kind in (("second", "L4"), ("third", "T4")):
        profile["backends"][name] = backend(f"{name}_URL", type=kind)
        profile["models"][name] = {**profile["models"]["coder"], "backend": name}
    assert [job.devices for job in planned(profile).jobs] == [(0, 1), (2,), (0,)]


def test_a_backend_without_a_launch_is_told(planned: Callable[[dict[str, Any]], Plan]) -> None:
    """A vLLM server that the profile only asks is not launched, and that is said."""
    profile = serving()
    profile["backends"]["theirs"] = {"provider": "vllm", "url": "http://theirs:8000/v1"}
    profile["models"]["more"] = {"backend": "theirs"}
    assert planned(profile).unserved == ("theirs",)


def test_an_adapter_is_a_model_of_the_same_backend(
    planned: Callable[[dict[str, Any]], Plan],
) -> None:
    """A LoRA adapter that is routed to needs no launch of its own."""
    profile = serving({"lora": {"sql": "models/sql"}})
    profile["models"]["sql"] = {"backend": "my-coder", "id": "sql", "context": 32768}
    assert [server.model for server in planned(profile).servers] == ["coder"]
