"""Whether a model fits its GPU, estimated before anything is launched. 1 GB is 10⁹ bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semroute_service.recipes.facts import FP8_CACHE_FROM, OVERHEAD_GB, QUANTIZATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semroute_service.profile.serving import ServeSpec, SizeSpec

_SHORTEST_CONTEXT = 1024
"""A shorter one is no advice."""


@dataclass(frozen=True, slots=True)
class Need:
    """What decides how much memory a server takes of each of its GPUs."""

    serve: ServeSpec
    quantization: str
    context: int
    gpus: int
    fp8_cache: bool
    memory_gb: float
    capability: int

    @property
    def weights_gb(self) -> float:
        """Split over the GPUs; a draft model is kept at 16 bits."""
        whole = _weights(self.serve, QUANTIZATIONS[self.quantization].bits)
        draft = _weights(self.serve.draft, 16) if self.serve.draft else 0.0
        return (whole + draft) / self.gpus

    @property
    def cache_gb(self) -> float:
        """The KV cache of one conversation that fills the context, the least vLLM starts with."""
        return self.context * self._token_bytes / 1e9

    @property
    def total_gb(self) -> float:
        return self.weights_gb + self.cache_gb + OVERHEAD_GB

    @property
    def available_gb(self) -> float:
        return self.memory_gb * self.serve.gpu_memory_utilization

    @property
    def fits(self) -> bool:
        return self.total_gb <= self.available_gb

    def __str__(self) -> str:
        return (
            f"{self.weights_gb:.1f} GB weights + {self.cache_gb:.1f} GB KV cache for "
            f"{self.context} tokens + {OVERHEAD_GB} GB overhead = {self.total_gb:.1f} GB a GPU, "
            f"of {self.available_gb:.1f} GB"
        )

    def remedies(self) -> Iterator[str]:
        """What would fit, each by itself."""
        room = self.available_gb - self.weights_gb - OVERHEAD_GB
        if self._token_bytes:
            longest = int(room * 1e9 / self._token_bytes) // 256 * 256
            if longest >= _SHORTEST_CONTEXT:
                yield f"a context of {longest}"
        if self.capability >= FP8_CACHE_FROM and replace(self, fp8_cache=True).fits:
            yield "kv_cache_dtype: fp8"
        for gpus in (2, 4, 8):
            if gpus > self.gpus and replace(self, gpus=gpus).fits:
                yield f"{gpus} GPUs with tensor_parallel: {gpus}"
                break
        for name in ("int8", "awq"):
            possible = QUANTIZATIONS[name].capability <= self.capability
            if possible and replace(self, quantization=name).fits:
                yield f"a checkpoint with quantization: {name}"
                break

    @property
    def _token_bytes(self) -> int:
        """What a token takes in the KV cache of each GPU."""
        size = 1 if self.fp8_cache else 2
        parts = (self.serve, *([self.serve.draft] if self.serve.draft else []))
        return sum(_token_values(part, self.gpus) * size for part in parts)


def _weights(size: SizeSpec, bits: float) -> float:
    """GB: the embeddings stay at 16 bits when the rest is quantised."""
    return ((size.parameters - size.unquantized) * bits + size.unquantized * 16) / 8


def _token_values(size: SizeSpec, gpus: int) -> int:
    """Keys and values of one token on each GPU, which has at least one head of every layer."""
    if not (size.layers and size.kv_heads and size.head_dim):
        return 0
    return 2 * size.layers * -(-size.kv_heads // gpus) * size.head_dim
