"""A profile as people write it. Unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from semroute_classifier.utterances import TASK_NAME
from semroute_service.profile.part import Money, Positive
from semroute_service.profile.part import Part as _Part
from semroute_service.profile.serving import ServeSpec, SlurmSpec
from semroute_service.query import Capability, Objective

Capabilities = Annotated[frozenset[Annotated[Capability, Field(strict=False)]], Field(strict=False)]
SensitivityWord = Literal["public", "internal", "confidential", "restricted"]


def _one_of(*keys: str) -> ConfigDict:
    """Tells editors that exactly one of ``keys`` is given; reading a profile checks it, too."""
    return ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in keys]})


class HardwareSpec(_Part):
    """What the profile expects of the place where it runs; for choosing one, not for serving."""

    rank: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[25])
    """Its place in the order in which profiles are tried, the lowest first. A profile without one
    is never chosen by itself."""
    gpu_types: list[str] = Field(default=[], examples=[["L4", "T4"]])
    """The types of GPU that must all be there, by their short names, such as T4 or H100."""
    min_gpu_memory_gb: Positive | None = Field(default=None, examples=[16])
    """The memory in GB that one of these GPUs must have, or one of any type where no types are
    given; a tenth less counts as the same."""
    required_cloud_apis: list[str] = Field(default=[], examples=[["deepseek"]])
    """The providers whose key must be set; `any` is the key of any cloud provider."""
    requires_slurm: bool = Field(default=False, examples=[True])
    """Whether SLURM must be there."""


class GpuSpec(_Part):
    """What a backend runs on, which its node knows and the router's own may not."""

    type: str = Field(examples=["T4"])
    """The short name of the type."""
    count: Annotated[int, Field(ge=1)] = Field(default=1, examples=[2])
    """How many of them the server uses."""
    memory_gb: Positive | None = Field(default=None, examples=[16])
    """The memory of each in GB."""
    name: str = Field(default="", examples=["gpu-0"])
    """Backends that give their GPU the same name share it; others have theirs for themselves."""


class EncoderModelSpec(_Part):
    """A declared embedding model, and the local encoder that stands in for it."""

    model: str = Field(examples=["bge-m3"])
    """The name of a model of `kind: embedding` on a local server."""
    fallback: str = Field(default="", examples=["bundled"])
    """A local encoder (`auto`, `bundled`, a folder or a hub id) that serves while the server does
    not answer. Without one, such queries are answered UNAVAILABLE."""


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
    """How queries are turned into vectors."""

    encoder: Annotated[
        str | EncoderModelSpec,
        PlainValidator(_encoder, json_schema_input_type=str | EncoderModelSpec),
    ] = Field(default="auto", examples=["bundled", {"model": "bge-m3", "fallback": "bundled"}])
    """`auto` (BGE-M3 where its weights are on the machine, else `bundled`), `bundled`, `hashing`
    (for tests), a folder or a hub id; or a declared model."""
    cascade: Annotated[
        Literal["auto", "on", "off"],
        BeforeValidator(_switch, json_schema_input_type=Literal["auto", "on", "off", True, False]),
    ] = Field(default="auto", examples=["off"])
    """Whether the fast static encoder may answer where it is sure. `auto` and `on` use it where
    there is one; with `off` the full encoder embeds every query."""


class BackendSpec(_Part):
    """A server or service that answers."""

    provider: str = Field(examples=["vllm"])
    """Its entry in the catalogue of providers, which says how to speak to it, where its key is
    read from and whether it is local."""
    url: str = Field(
        default="", examples=["http://gpu-01:8000/v1", "${CODER_URL:-http://gpu:8000/v1}"]
    )
    """Its address, where the catalogue has none. It may hold ${NAME} or ${NAME:-default} from the
    environment, or from what jobs registered in SEMROUTE_REGISTRY; and never a key."""
    locality: Literal["cloud"] | None = Field(default=None, examples=["cloud"])
    """`cloud` treats it as outside the building though its provider is local; never the
    reverse."""
    region: str = Field(default="", examples=["eu-west"])
    """Where it stands; by default where its provider says, or `governance.region` where it is
    local. A caller who names a region is served only where it is known to be the same or within."""
    clearance: SensitivityWord | None = Field(default=None, examples=["internal"])
    """The most sensitive data it may see; by default `restricted`, which is anything, where it is
    local, and `public` where it is not."""
    optional: bool = Field(default=False, examples=[True])
    """Whether it may be absent: then it is asked now and then, and denied by the rule
    `not_running` while it does not answer."""
    gpu: GpuSpec | None = None
    """What it runs on."""
    slurm: SlurmSpec | None = None
    """How SLURM is asked for that; for launch recipes."""


class PriceSpec(_Part):
    """USD per million tokens."""

    input: Money = Field(examples=[0.14])
    """For what is sent."""
    output: Money = Field(examples=[0.28])
    """For what is answered."""


class SpeedSpec(_Part):
    """How fast it is expected to be, until calls have been measured."""

    first_token_seconds: Positive = Field(examples=[0.4])
    """Until the first token."""
    tokens_per_second: Positive | None = Field(default=None, examples=[90])
    """After it."""


class ModelSpec(_Part):
    """A model, on a declared backend or straight at a provider."""

    model_config = _one_of("backend", "provider")

    backend: str = Field(default="", examples=["coder"])
    """The declared backend that serves it; or give `provider`."""
    provider: str = Field(default="", examples=["deepseek"])
    """The provider that serves it, where no backend need be declared."""
    id: str = Field(default="", examples=["Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"])
    """The name that its server knows, sent as written. Left out, it is the first model that a
    local server lists."""
    kind: Literal["chat", "embedding", "guard"] = Field(default="chat", examples=["embedding"])
    """What it is for; only a chat model is sent conversations."""
    quantization: str = Field(default="", examples=["awq"])
    """How its weights are quantised: `fp16`, `bf16`, `int8`, `fp8`, `awq` or `gptq`; for
    `semroute servers`, which knows no others."""
    context: Annotated[int, Field(gt=0)] | None = Field(default=None, examples=[32768])
    """The most tokens of conversation and answer together; not screened where it is not given."""
    price: PriceSpec | None = None
    """What it costs; by default what the catalogue of providers has for its id. A local model
    without a price costs nothing; a cloud model without one is denied where the cost is limited."""
    quality: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, examples=[85])
    """How good its answers are beside those of the profile's other models; for the objectives
    `quality` and `balanced`, which rank a model without one behind those that have one."""
    speed: SpeedSpec | None = None
    """How fast it is, for the objectives `latency` and `balanced`, until calls have been measured;
    by default what the catalogue of providers has for its provider."""
    capabilities: Capabilities = Field(default=frozenset(), examples=[["tools", "json_schema"]])
    """What it can do. One that is not declared denies only requests that need it; what every model
    of the provider can do need not be repeated."""
    extra_body: dict[str, Any] = Field(default={}, examples=[{"reasoning_effort": "low"}])
    """Further fields of every request to it, sent as written."""
    serve: ServeSpec | None = None
    """How its own vLLM server is launched; `semroute servers` writes the recipe."""


class TiersSpec(_Part):
    """Candidates per tier, best first."""

    low: list[str] = Field(default=[], examples=[["coder"]])
    """For what a small model surely does."""
    medium: list[str] = Field(default=[], examples=[["coder", "deepseek-v3"]])
    """For what needs a competent model; also where no tier is known."""
    high: list[str] = Field(default=[], examples=[["deepseek-v3", "coder"]])
    """For several steps of reasoning, complex systems or many constraints."""


class RouteSpec(_Part):
    """Who answers a task: `model` where the tier does not matter, `tiers` where it does."""

    model_config = _one_of("model", "tiers")

    model: str = Field(default="", examples=["generalist"])
    """The model for every tier; or give `tiers`."""
    tiers: TiersSpec | None = None
    """Candidates per tier. A tier that is left out takes the next higher, or the highest there
    is."""
    fallback_chain: list[str] | None = Field(default=None, examples=[["deepseek-v3"]])
    """What stands behind the row, in this order; by default the profile's chain. An empty list is
    no chain."""
    allow_cloud: bool | None = Field(default=None, examples=[False])
    """Whether its queries may leave the building; by default what the profile says, which a row
    may only narrow."""
    fallback_to_cloud: bool | None = Field(default=None, examples=[False])
    """Whether its fallbacks may leave the building; by default the row's `allow_cloud`, which it
    may only narrow."""
    local_only_reason: str = Field(default="", examples=["May hold sample IDs or clinical data"])
    """Why its queries stay, in words for whoever is denied."""
    max_tokens: Annotated[int, Field(gt=0)] | None = Field(default=None, examples=[2048])
    """The length of the answer, where the request leaves it open."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, examples=[0.2])
    """The temperature, where the request leaves it open."""


class ClocksSpec(_Part):
    """How long one attempt may be silent, in seconds. What is left out follows `timeout_seconds`,
    `headers` the clock of the first token, and `idle_bytes` the longer one of tokens."""

    connect: Positive = Field(default=5, examples=[5])
    """Until the connection stands."""
    headers: Positive | None = Field(default=None, examples=[30])
    """Until the headers of the answer."""
    first_token: Positive | None = Field(default=None, examples=[30])
    """Until the first token, all that is before it included."""
    idle_bytes: Positive | None = Field(default=None, examples=[30])
    """Between any two pieces of the answer, a keep-alive being one."""
    idle_tokens: Positive | None = Field(default=None, examples=[30])
    """Between two tokens."""
    total: Positive | None = Field(default=None, examples=[600])
    """For the whole attempt; without a limit, where left out."""


class BehaviorSpec(_Part):
    """How backends are called."""

    objective: Annotated[Objective, Field(strict=False)] | None = Field(
        default=None, examples=["latency"]
    )
    """What candidates are ordered by where the request does not say; left out, they keep the order
    written."""
    prefer_local: bool = Field(default=False, examples=[True])
    """Whether local models come first in fallback chains; rows keep the order written."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(default=0, examples=[2])
    """How often the same model is tried again where that may help."""
    timeout_seconds: Positive = Field(default=60, examples=[90])
    """How many seconds to wait for the first token, and then for each next one."""
    clocks: ClocksSpec = ClocksSpec()
    """Finer limits than `timeout_seconds`."""
    hedge_after_seconds: Positive | None = Field(default=None, examples=[2])
    """Where no token has come for so long, the next candidate is asked as well; the first to
    answer is heard, and the other is let go. Both may cost. Left out, nothing is asked twice."""
    reroute_filtered: bool = Field(default=False, examples=[True])
    """Whether a candidate is asked after another's content filter refused."""
    enable_caching: bool = Field(
        default=False, examples=[False], json_schema_extra={"const": False}
    )
    """Answers are never cached; `true` is refused."""


class CostSpec(_Part):
    """Limits in USD."""

    max_per_request: Money | None = Field(default=None, examples=[0.10])
    """Denies what could cost more, and caps an answer of unstated length to what this pays for."""
    monthly_limit: Money | None = Field(default=None, examples=[50])
    """Denies what would take the calendar month (UTC) of this profile over it."""


class NamesSpec(_Part):
    """Which names a tenant may use; a name in both lists is denied."""

    allow: list[str] | None = Field(default=None, examples=[["generalist", "coder"]])
    """These and no others; an empty list allows none, and without a list all are allowed."""
    deny: list[str] = Field(default=[], examples=[["gpt-4o"]])
    """Never these."""


class TenantSpec(_Part):
    """What a tenant may use: never more than the profile and its rows allow."""

    allow_cloud: bool | None = Field(default=None, examples=[False])
    """Whether its queries may leave the building; as the profile says, where left out."""
    models: NamesSpec = NamesSpec()
    """Models, by their names in this profile."""
    providers: NamesSpec = NamesSpec()
    """Providers, by their names in the catalogue."""


class GovernanceSpec(_Part):
    """What may leave the building, and for whom."""

    allow_cloud: bool = Field(default=False, examples=[True])
    """Whether anything may leave the building."""
    region: str = Field(default="", examples=["eu-west"])
    """Where local backends stand."""
    default_sensitivity: SensitivityWord | None = Field(default=None, examples=["internal"])
    """How sensitive a query is where its caller does not say; left out, such a query is not
    restricted."""
    tenants: dict[str, TenantSpec] = Field(
        default={}, examples=[{"clinic": {"allow_cloud": False}}]
    )
    """Narrower rules, by the tenant that a caller names. `"*"` holds for every tenant that is not
    listed and for callers that name none; without it they are not restricted."""


class ProfileSpec(_Part):
    """A named policy: who could answer, who may, and what it may cost."""

    name: str = Field(default="", examples=["office"])
    """The file's name without its ending, where it is given."""
    description: str = Field(default="", examples=["Two GPUs, and one cloud key"])
    """What the profile is for, in a line; lists show it."""
    version: str = Field(default="", examples=["1.0"])
    """A version for people, as text."""
    hardware: HardwareSpec = HardwareSpec()
    """When it is chosen by itself."""
    classifier: ClassifierSpec = ClassifierSpec()
    """How queries are turned into vectors."""
    backends: dict[str, BackendSpec] = Field(
        default={}, examples=[{"gpu": {"provider": "vllm", "url": "http://gpu-01:8000/v1"}}]
    )
    """Servers and services, by a name of your choice."""
    models: dict[str, ModelSpec] = Field(
        min_length=1,
        examples=[{"coder": {"backend": "gpu", "id": "Qwen/Qwen2.5-Coder-7B-Instruct"}}],
    )
    """Models, by a name of your choice."""
    routes: dict[str, RouteSpec] = Field(
        min_length=1,
        examples=[{"default": {"model": "coder"}}],
        json_schema_extra={
            "required": ["default"],
            "propertyNames": {"pattern": f"^{TASK_NAME.pattern}$", "not": {"const": "none"}},
        },
    )
    """A row per task, and the row `default` for tasks without one and for queries near to
    nothing."""
    fallback_chain: list[str] = Field(default=[], examples=[["deepseek-v3"]])
    """What stands behind every row that names no chain of its own, in this order."""
    behavior: BehaviorSpec = BehaviorSpec()
    """How backends are called."""
    cost: CostSpec = CostSpec()
    """What its answers may cost."""
    governance: GovernanceSpec = GovernanceSpec()
    """What may leave the building."""
