"""The arguments of ``vllm serve`` for one model; host and port are the recipe's business."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from semroute_service.query import Capability
from semroute_service.recipes.facts import BFLOAT16_FROM, QUANTIZATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.profile import Model
    from semroute_service.profile.serving import ServeSpec
    from semroute_service.recipes.memory import Need

DECIDED_HERE = frozenset(
    {
        "--api-key",
        "--dtype",
        "--enable-lora",
        "--enable-prefix-caching",
        "--gpu-memory-utilization",
        "--host",
        "--kv-cache-dtype",
        "--lora-modules",
        "--max-model-len",
        "--model",
        "--no-enable-prefix-caching",
        "--port",
        "--quantization",
        "--runner",
        "--served-model-name",
        "--speculative-config",
        "--tensor-parallel-size",
        "-q",
        "-tp",
    }
)
"""What ``serve.arguments`` must not say again. Keys are never arguments: everybody on the machine
sees those. vLLM reads VLLM_API_KEY itself."""


def arguments(model: Model, serve: ServeSpec, need: Need) -> tuple[str, ...]:
    """What stands behind ``vllm serve``, the weights first."""
    return tuple(_arguments(model, serve, need))


def _arguments(model: Model, serve: ServeSpec, need: Need) -> Iterator[str]:
    yield serve.weights or model.id
    if serve.weights:
        yield from ("--served-model-name", model.id)
    quantization = QUANTIZATIONS[need.quantization]
    if dtype := _dtype(quantization.dtype, need.capability):
        yield from ("--dtype", dtype)
    if method := quantization.method_on(need.capability):
        yield from ("--quantization", method)
    if need.gpus > 1:
        yield from ("--tensor-parallel-size", str(need.gpus))
    yield from ("--max-model-len", str(need.context))
    yield from ("--gpu-memory-utilization", f"{serve.gpu_memory_utilization:g}")
    if Capability.EMBEDDING in model.capabilities:
        yield from ("--runner", "pooling")
    else:
        yield f"--{'' if serve.prefix_caching else 'no-'}enable-prefix-caching"
        if need.fp8_cache:
            yield from ("--kv-cache-dtype", "fp8")
    if serve.lora:
        yield from ("--enable-lora", "--lora-modules")
        yield from (f"{name}={path}" for name, path in serve.lora.items())
    if draft := serve.draft:
        told = {
            "method": "draft_model",
            "model": draft.id,
            "num_speculative_tokens": draft.tokens,
        }
        yield from ("--speculative-config", json.dumps(told))
    yield from serve.arguments


def _dtype(wanted: str, capability: int) -> str:
    """vLLM takes the checkpoint's own where nothing is said, which old GPUs may not have."""
    return wanted or ("float16" if capability < BFLOAT16_FROM else "")
