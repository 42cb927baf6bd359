"""Profiles with servers of their own, for tests of launch recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semroute_service.profile import load_profile
from semroute_service.testing import write_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from semroute_service.profile import Profile

SEVEN: dict[str, Any] = {
    "parameters": 7.62,
    "unquantized": 1.09,
    "layers": 28,
    "kv_heads": 4,
    "head_dim": 128,
}
"""The figures of Qwen2.5-7B."""


def serving(
    serve: Mapping[str, Any] | None = None, *, gpu: str = "T4", count: int = 1, **model: Any
) -> dict[str, Any]:
    """A profile whose only model, coder on the backend my-coder, is launched like this."""
    return {
        "backends": {"my-coder": backend("CODER_URL", type=gpu, count=count)},
        "models": {
            "coder": {
                "backend": "my-coder",
                "id": "org/coder",
                "quantization": "awq",
                "context": 32768,
                "serve": {**SEVEN, **(serve or {})},
                **model,
            }
        },
        "routes": {"default": {"model": "coder"}},
    }


def sharing(*shares: float) -> dict[str, Any]:
    """A profile of models called a, b, c, whose servers take these shares of one H100."""
    names = "abc"[: len(shares)]
    return {
        "backends": {
            f"on-{name}": backend(f"{name.upper()}_URL", type="H100", name="the one")
            for name in names
        },
        "models": {
            name: {
                "backend": f"on-{name}",
                "id": f"org/{name}",
                "quantization": "awq",
                "context": 4096,
                "serve": {**SEVEN, "gpu_memory_utilization": share},
            }
            for name, share in zip(names, shares, strict=True)
        },
        "routes": {"default": {"model": "a"}},
    }


def backend(variable: str, **gpu: Any) -> dict[str, Any]:
    """A vLLM backend whose url reads ``variable``."""
    return {"provider": "vllm", "url": f"${{{variable}:-http://nowhere:8000/v1}}", "gpu": gpu}


def loaded(folder: Path, profile: Mapping[str, Any], environment: Any = None) -> Profile:
    """``profile`` read as the file mine.yaml of ``folder``."""
    write_files(folder, {"mine": profile})
    return load_profile(folder / "mine.yaml", environment=environment or {})
