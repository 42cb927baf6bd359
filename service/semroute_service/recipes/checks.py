"""What keeps a model from being launched as its profile says, told with what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_classifier.documents import suggest
from semroute_service.detection.gpus import gpu_type, usual_memory_gb
from semroute_service.query import Capability
from semroute_service.recipes.arguments import DECIDED_HERE
from semroute_service.recipes.facts import (
    COMPUTE_CAPABILITY,
    FP8_CACHE_FROM,
    QUANTIZATIONS,
    spoken,
)
from semroute_service.recipes.memory import Need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from semroute_service.profile import DeclaredGpu, Model
    from semroute_service.profile.serving import ServeSpec, SizeSpec

MOST_SHARED = 0.95
"""What all servers on one GPU may take of it together."""


def faults(model: Model, serve: ServeSpec) -> Iterator[str]:
    """Everything that is wrong with the launch of one model."""
    where, backend = f"models.{model.name}", model.backend
    if backend.provider.id != "vllm":
        yield f"{where}.serve: {backend.name} is no vLLM server"
    if not model.id:
        yield f"{where}.id: is required to launch it: a hub id or a folder"
    if model.context is None:
        yield f"{where}.context: is required to launch it, as vLLM's --max-model-len"
    if model.quantization not in QUANTIZATIONS:
        hint = suggest(model.quantization, QUANTIZATIONS.keys() - {""})
        yield f'{where}.quantization: "{model.quantization}" is not known{hint}'
    yield from _argument_faults(f"{where}.serve", model, serve)
    yield from _size_faults(f"{where}.serve", model, serve)
    if backend.gpu is None:
        yield f"backends.{backend.name}.gpu: is required to launch {model.name}: its type and count"
    else:
        yield from _gpu_faults(model, serve, backend.gpu)


def need(model: Model, serve: ServeSpec, gpu: DeclaredGpu) -> Need | None:
    """What the model takes of each GPU; None where too little is known to say."""
    capability = COMPUTE_CAPABILITY.get(gpu_type(gpu.type))
    memory_gb = gpu.memory_gb or usual_memory_gb(gpu.type)
    known = capability and memory_gb and model.context and model.quantization in QUANTIZATIONS
    if not known:
        return None
    assert capability
    assert memory_gb
    assert model.context
    return Need(
        serve=serve,
        quantization=model.quantization,
        context=model.context,
        gpus=serve.tensor_parallel or gpu.count,
        fp8_cache=serve.kv_cache_dtype == "fp8",
        memory_gb=memory_gb,
        capability=capability,
    )


def crowding(gpu: str, shares: Mapping[str, float]) -> Iterator[str]:
    """Why models cannot share a GPU, of which each takes its share."""
    total = round(sum(shares.values()), 6)
    if len(shares) > 1 and total > MOST_SHARED:
        told = " + ".join(f"{share:g} ({name})" for name, share in shares.items())
        yield (
            f"backends: the GPU {gpu} is given away more than once: gpu_memory_utilization "
            f"{told} = {total:g}; together at most {MOST_SHARED}"
        )


def _argument_faults(where: str, model: Model, serve: ServeSpec) -> Iterator[str]:
    for argument in serve.arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name == "--api-key":
            yield f"{where}.arguments: a key is no argument; set VLLM_API_KEY where the server runs"
        elif name in DECIDED_HERE:
            yield f"{where}.arguments: {name} is set from the profile's other keys"
    for name in (model.id, serve.weights, *serve.lora):
        if name.startswith("-"):
            yield f'{where}: vLLM would read "{name}" as an option'


def _size_faults(where: str, model: Model, serve: ServeSpec) -> Iterator[str]:
    if Capability.EMBEDDING not in model.capabilities:
        yield from _cache_faults(where, serve)
    if serve.draft:
        yield from _cache_faults(f"{where}.draft", serve.draft)


def _cache_faults(where: str, size: SizeSpec) -> Iterator[str]:
    missing = [key for key in ("layers", "kv_heads", "head_dim") if getattr(size, key) is None]
    if missing:
        yield f"{where}: needs {' and '.join(missing)}, which tell the size of the KV cache"


def _gpu_faults(model: Model, serve: ServeSpec, gpu: DeclaredGpu) -> Iterator[str]:
    where, there = f"models.{model.name}", f"backends.{model.backend.name}.gpu"
    kind = gpu_type(gpu.type)
    capability = COMPUTE_CAPABILITY.get(kind)
    if capability is None:
        yield f'{there}.type: "{gpu.type}" is not known{suggest(kind, COMPUTE_CAPABILITY)}'
        return
    if not (gpu.memory_gb or usual_memory_gb(gpu.type)):
        yield f"{there}.memory_gb: is required, since {gpu.type} is sold with various memories"
    if serve.tensor_parallel and serve.tensor_parallel > gpu.count:
        yield f"{where}.serve.tensor_parallel: is more than the {gpu.count} GPUs of its backend"
    least = {f"{where}.serve.kv_cache_dtype: fp8": FP8_CACHE_FROM if _fp8(serve) else 0}
    if quantization := QUANTIZATIONS.get(model.quantization):
        least[f"{where}.quantization: {model.quantization}"] = quantization.capability
    for what, needed in least.items():
        if capability < needed:
            yield (
                f"{what} needs a GPU of compute capability {spoken(needed)}; "
                f"{kind} has {spoken(capability)}"
            )
    needed_memory = need(model, serve, gpu)
    if needed_memory and not needed_memory.fits:
        remedies = " or ".join(needed_memory.remedies())
        yield f"{where}: does not fit {gpu.count} {kind}: {needed_memory}; " + (
            f"would fit: {remedies}" if remedies else "take a smaller model or larger GPUs"
        )


def _fp8(serve: ServeSpec) -> bool:
    return serve.kv_cache_dtype == "fp8"
