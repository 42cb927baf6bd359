"""How a local model is launched: what a profile says for ``semroute servers`` alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from semroute_service.profile.part import Part, Positive

Count = Annotated[int, Field(ge=1)]
SlurmWord = Annotated[str, Field(pattern=r"^[\w.:,@%+/-]*$")]
"""Nothing that could end a line of a batch script, or begin another word in it."""


class SlurmSpec(Part):
    """How SLURM is asked for a server's GPUs."""

    model_config = ConfigDict(frozen=True)

    partition: SlurmWord = Field(default="", examples=["gpu"])
    """The partition; left out, it is the cluster's default."""
    gpu: SlurmWord = Field(default="", examples=["tesla_t4"])
    """The GPU's type as SLURM calls it; by default the type of the backend's `gpu` in small
    letters."""
    time_limit: SlurmWord = Field(default="", examples=["1-00:00:00"])
    """How long a job may run, in quotes; left out, it is the partition's default."""
    account: SlurmWord = Field(default="", examples=["bioinformatics"])
    """The account that the job is charged to."""
    options: list[Annotated[str, Field(pattern=r"^--[\w-]+(=[\w.:,@%+/-]+)?$")]] = Field(
        default=[], examples=[["--cpus-per-task=8", "--mem=32G"]]
    )
    """Further options of sbatch."""


class SizeSpec(Part):
    """How large a model is, as its page and its config.json say; for the memory check."""

    model_config = ConfigDict(frozen=True)

    parameters: Positive = Field(examples=[7.62])
    """Parameters, in billions."""
    unquantized: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0, examples=[1.09]
    )
    """How many of these billions stay at 16 bits when the rest is quantised: the embeddings and
    the head, vocab_size × hidden_size × 2, unless they are tied."""
    layers: Count | None = Field(default=None, examples=[28])
    """num_hidden_layers. With `kv_heads` and `head_dim` it says how much a token takes in the KV
    cache; an embedding model has none."""
    kv_heads: Count | None = Field(default=None, examples=[4])
    """num_key_value_heads."""
    head_dim: Count | None = Field(default=None, examples=[128])
    """head_dim, or hidden_size / num_attention_heads."""


class DraftSpec(SizeSpec):
    """A small model that drafts, and the large one checks: speculative decoding. Both must have
    the same vocab_size."""

    id: str = Field(examples=["Qwen/Qwen3-0.6B"])
    """Where its weights are: a hub id or a folder."""
    tokens: Count = Field(default=5, examples=[5])
    """How many tokens it drafts at a time."""


class ServeSpec(SizeSpec):
    """How vLLM is launched for the model."""

    weights: str = Field(default="", examples=["models/Qwen2.5-Math-7B-Instruct-W8A8"])
    """Where its weights are, a hub id or a folder, where that is not `id`."""
    tensor_parallel: Count | None = Field(default=None, examples=[2])
    """Over how many GPUs it is split; by default all that the backend's `gpu` counts."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, examples=[0.45]
    )
    """The share of each GPU's memory that the server may take, for weights, KV cache and all."""
    kv_cache_dtype: Literal["auto", "fp8"] = Field(default="auto", examples=["fp8"])
    """`fp8` halves the KV cache; needs a GPU such as L4 or H100."""
    prefix_caching: bool = Field(default=True, examples=[False])
    """Whether beginnings that prompts share are computed once."""
    lora: dict[str, str] = Field(default={}, examples=[{"sql": "models/sql-lora"}])
    """LoRA adapters by the name that requests ask for, a folder or a hub id each. An adapter that
    is to be routed to is another model on the same backend with this name as its `id`."""
    draft: DraftSpec | None = None
    """The model that drafts for it."""
    arguments: list[str] = Field(
        default=[], examples=[["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]]
    )
    """Further arguments of vllm serve."""
