"""A profile as people write it. Unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from semroute_service.query import Capability

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Capabilities = Annotated[frozenset[Annotated[Capability, Field(strict=False)]], Field(strict=False)]
SensitivityWord = Literal["public", "internal", "confidential", "restricted"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class HardwareSpec(_Part):
    """What the profile expects of the place where it runs; for choosing one, not for serving.

    ``rank`` is its place in the order in which profiles are tried, the lowest first; one without
    is never chosen by itself.
    """

    rank: Annotated[int, Field(ge=0)] | None = None
    gpu_types: list[str] = []
    min_gpu_memory_gb: Positive | None = None
    required_cloud_apis: list[str] = []
    requires_slurm: bool = False


class GpuSpec(_Part):
    """What a backend runs on, which its node knows and the router's own may not."""

    type: str
    count: Annotated[int, Field(ge=1)] = 1
    memory_gb: Positive | None = None


class EncoderModelSpec(_Part):
    """A declared embedding model, and the local encoder that stands in for it."""

    model: str
    fallback: str = ""


def _encoder(written: Any) -> str | EncoderModelSpec:
    """By hand, because pydantic tells of each branch of a union that was not meant."""
    if isinstance(written, str):
        return written
    if isinstance(written, dict):
        return EncoderModelSpec.model_validate(written)
    raise PydanticCustomError("encoder", "must be text, or hold model and fallback")


def _switch(written: Any) -> Any:
    """YAML reads a bare on and off as true and false."""
    return (
        {True: "on", False: "off"}.get(written, written) if isinstance(written, bool) else written
    )


class ClassifierSpec(_Part):
    """The encoder: auto, bundled, hashing, a folder or a hub id; or a declared model. Whether its
    static twin may answer first."""

    encoder: Annotated[str | EncoderModelSpec, PlainValidator(_encoder)] = "auto"
    cascade: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"


class BackendSpec(_Part):
    """An endpoint. ``url`` may hold ${NAME} or ${NAME:-default} from the environment."""

    provider: str
    url: str = ""
    locality: Literal["cloud"] | None = None
    region: str = ""
    clearance: SensitivityWord | None = None
    optional: bool = False
    gpu: GpuSpec | None = None


class PriceSpec(_Part):
    """USD per million tokens."""

    input: Money
    output: Money


class ModelSpec(_Part):
    """A model, on a declared backend or straight at a provider."""

    backend: str = ""
    provider: str = ""
    id: str = ""
    kind: Literal["chat", "embedding", "guard"] = "chat"
    quantization: str = ""
    context: Annotated[int, Field(gt=0)] | None = None
    price: PriceSpec | None = None
    capabilities: Capabilities = frozenset()


class TiersSpec(_Part):
    """Candidates per tier, best first."""

    low: list[str] = []
    medium: list[str] = []
    high: list[str] = []


class RouteSpec(_Part):
    """A row: ``model`` where the tier does not matter, ``tiers`` where it does."""

    model: str = ""
    tiers: TiersSpec | None = None
    fallback_chain: list[str] | None = None
    allow_cloud: bool | None = None
    fallback_to_cloud: bool | None = None
    local_only_reason: str = ""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


class BehaviorSpec(_Part):
    """How backends are called."""

    prefer_local: bool = False
    max_retries: Annotated[int, Field(ge=0, le=10)] = 0
    timeout_seconds: Positive = 60.0
    enable_caching: bool = False


class CostSpec(_Part):
    """USD."""

    max_per_request: Money | None = None
    monthly_limit: Money | None = None


class GovernanceSpec(_Part):
    """What may leave the building. ``allow_cloud`` absent means false."""

    allow_cloud: bool = False
    region: str = ""
    default_sensitivity: SensitivityWord | None = None


class ProfileSpec(_Part):
    """The whole file."""

    name: str = ""
    description: str = ""
    version: str = ""
    hardware: HardwareSpec = HardwareSpec()
    classifier: ClassifierSpec = ClassifierSpec()
    backends: dict[str, BackendSpec] = {}
    models: dict[str, ModelSpec] = Field(min_length=1)
    routes: dict[str, RouteSpec] = Field(min_length=1)
    fallback_chain: list[str] = []
    behavior: BehaviorSpec = BehaviorSpec()
    cost: CostSpec = CostSpec()
    governance: GovernanceSpec = GovernanceSpec()
