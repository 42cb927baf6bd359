"""What vLLM and GPUs are known to do. Data: a new GPU or quantisation is a line.

Sources, read in November 2026:
compute capabilities: https://developer.nvidia.com/cuda-gpus
quantisation by GPU: https://docs.vllm.ai/en/latest/features/quantization/
FP8 KV cache below 8.9 is refused: https://github.com/vllm-project/vllm/issues/47549
"""

from __future__ import annotations

from dataclasses import dataclass

VLLM_VERSION = "0.32.0"
"""The version that containers get; the arguments are those of its ``vllm serve``."""
IMAGE = f"vllm/vllm-openai:v{VLLM_VERSION}"

COMPUTE_CAPABILITY = {
    "V100": 70,
    "T4": 75,
    "A100": 80,
    "A30": 80,
    "A2": 86,
    "A10": 86,
    "A10G": 86,
    "A16": 86,
    "A40": 86,
    "RTX A6000": 86,
    "L4": 89,
    "L40": 89,
    "L40S": 89,
    "H100": 90,
    "H200": 90,
    "GH200": 90,
    "B200": 100,
}
"""By short type; 75 is 7.5."""

BFLOAT16_FROM = 80
"""Older GPUs, such as the T4, have float16 only."""
FP8_CACHE_FROM = 89
MARLIN_FROM = 80
"""From here on every version of vLLM has its fast kernels for AWQ and GPTQ."""

OVERHEAD_GB = 1.5
"""What a server takes of each GPU beside weights and KV cache: CUDA's context, activations, CUDA
graphs. A rule of thumb for models of 1 to 70 billion parameters, and for a few LoRA adapters."""

_GROUPED = 4 + (16 + 4) / 128
"""4 bits, and for each group of 128 weights a scale of 16 bits and a zero point of 4."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """A way to store weights: bits for each, what vLLM calls it and the GPUs that it runs on.

    ``method`` is empty where there is nothing to say; ``marlin`` is its name where there are
    Marlin kernels.
    """

    bits: float
    capability: int
    method: str = ""
    marlin: str = ""
    dtype: str = ""

    def method_on(self, capability: int) -> str:
        return self.marlin if self.marlin and capability >= MARLIN_FROM else self.method


QUANTIZATIONS = {
    "": Quantization(16, 70),
    "fp16": Quantization(16, 70, dtype="float16"),
    "bf16": Quantization(16, BFLOAT16_FROM, dtype="bfloat16"),
    # A checkpoint of llm-compressor: 8-bit weights and activations.
    "int8": Quantization(8, 75, method="compressed-tensors"),
    # Below 8.9 the weights alone are 8-bit.
    "fp8": Quantization(8, 75, method="fp8"),
    "awq": Quantization(_GROUPED, 75, method="awq", marlin="awq_marlin"),
    "gptq": Quantization(_GROUPED, 75, method="gptq", marlin="gptq_marlin"),
}
"""By the name that a profile gives it."""


def spoken(capability: int) -> str:
    """75 as people say it: 7.5."""
    return f"{capability // 10}.{capability % 10}"
