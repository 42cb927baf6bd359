"""A profile as the program uses it: resolved, complete, immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from semroute_classifier.utterances import Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semroute_classifier.encoders import EncoderSpec
    from semroute_service.profile.providers import Provider, Speed
    from semroute_service.profile.serving import ServeSpec, SlurmSpec
    from semroute_service.query import Capability, Objective, Parameter, Sensitivity

DEFAULT_ROUTE = "default"
"""The row for tasks without one of their own and for queries near to nothing."""
ANY_TENANT = "*"
"""The tenant that stands for every one not listed, and for callers that name none."""


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-USD per million tokens, so that published prices are exact integers."""

    input: int
    output: int

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-USD for so many tokens, rounded up."""
        return -(-(prompt_tokens * self.input + completion_tokens * self.output) // 1_000_000)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a profile expects of the place where it runs. ``rank`` is its place in the order in
    which profiles are tried, the lowest first; None is never chosen by itself."""

    rank: int | None = None
    gpu_types: tuple[str, ...] = ()
    min_gpu_memory_gb: float | None = None
    cloud_keys: tuple[str, ...] = ()
    """Providers whose key is required; ``any`` is any cloud provider's."""
    slurm: bool = False


@dataclass(frozen=True, slots=True)
class DeclaredGpu:
    """What a backend is declared to run on: so many of a type, and the memory of each in GB."""

    type: str
    count: int = 1
    memory_gb: float | None = None
    name: str = ""
    """Backends whose GPU has the same name share it; empty is shared with nobody."""


@dataclass(frozen=True, slots=True)
class Backend:
    """An endpoint that can stream an answer. ``region`` and ``url`` are empty where unknown."""

    name: str
    provider: Provider
    url: str
    local: bool
    region: str
    clearance: Sensitivity
    optional: bool = False
    gpu: DeclaredGpu | None = None
    slurm: SlurmSpec | None = field(default=None, hash=False)
    url_variable: str = ""
    """The environment variable that the url takes its place from; empty where it names none."""
    lacks: str = ""
    """What must be set before it has an address, in words; empty where nothing must."""

    def has_credentials(self) -> bool:
        """Whether a call could be made at all, with the environment as it is now."""
        return not self.lacks and self.provider.has_credentials()


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a profile names.

    ``id`` is sent as written; empty means the first model that the backend lists. ``price`` is
    None where it is not known; a local model without one costs nothing. ``quality`` is from 0 to
    100, and None where nobody declared it.
    """

    name: str
    id: str
    backend: Backend
    capabilities: frozenset[Capability]
    context: int | None = None
    price: Price | None = None
    quantization: str = ""
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields of every request to it, sent as written."""
    quality: float | None = None
    speed: Speed | None = None
    """Declared for it, or reported of its provider; None where it is not known."""
    first_token: float | None = None
    """Seconds that its provider may need to the first token, where the profile sets no timeout."""
    serve: ServeSpec | None = field(default=None, hash=False)
    """How its own server is launched; None where that is nobody's business here."""

    @property
    def local(self) -> bool:
        return self.backend.local

    @property
    def refuses(self) -> frozenset[Parameter]:
        """The parameters that its provider does not take for it."""
        return self.backend.provider.quirks_of(self.id).refuse

    @property
    def thinking_tokens(self) -> int:
        """Tokens that each answer may think with before it begins, as ``extra_body`` says."""
        thinking = self.extra_body.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        return budget if isinstance(budget, int) else 0

    @property
    def effective_price(self) -> Price | None:
        """The price, nothing for a local model without one, None where it cannot be known."""
        return Price(0, 0) if self.price is None and self.local else self.price


@dataclass(frozen=True, slots=True)
class Route:
    """A row of a profile: candidates per tier, best first, and what stands behind them."""

    task: str
    tiers: Mapping[Tier, tuple[str, ...]]
    fallback_chain: tuple[str, ...] = ()
    allow_cloud: bool = False
    fallback_to_cloud: bool = False
    local_only_reason: str = ""
    max_tokens: int | None = None
    temperature: float | None = None

    def primaries(self, tier: Tier | None) -> tuple[str, ...]:
        """The candidates for ``tier``; one that the row lacks takes the next higher, then the
        highest it has; None counts as MEDIUM."""
        wanted = tier or Tier.MEDIUM
        higher = [t for t in Tier if t >= wanted and t in self.tiers]
        return self.tiers[higher[0] if higher else max(self.tiers)]


@dataclass(frozen=True, slots=True)
class Names:
    """Which names may be used: those of ``allow``, or all where it is None; never those of
    ``deny``."""

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()

    def admits(self, name: str) -> bool:
        return name not in self.deny and (self.allow is None or name in self.allow)


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a tenant may use, beside what the profile and the row say. Without a word, all."""

    allow_cloud: bool = True
    models: Names = Names()
    providers: Names = Names()


_UNRESTRICTED = Tenant()


@dataclass(frozen=True, slots=True)
class Behavior:
    """How backends are called. Seconds; None is no limit, and no hedging.

    ``first_token`` is from the attempt's beginning, ``idle_tokens`` between two deltas and
    ``total`` for the whole attempt; a backend watches the other clocks.
    """

    prefer_local: bool = False
    max_retries: int = 0
    connect: float = 5.0
    headers: float = 60.0
    first_token: float = 60.0
    idle_bytes: float = 60.0
    idle_tokens: float = 60.0
    total: float | None = None
    hedge_after: float | None = None
    reroute_filtered: bool = False
    objective: Objective | None = None
    """What candidates are ordered by where a request does not say; None is the written order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Money, in nano-USD; None is no limit."""

    max_per_request: int | None = None
    monthly: int | None = None


@dataclass(frozen=True)
class Profile:
    """A named policy. ``revision`` is a digest of the file's content."""

    name: str
    description: str
    version: str
    revision: str
    encoder: EncoderSpec
    models: Mapping[str, Model]
    routes: Mapping[str, Route]
    backends: Mapping[str, Backend]
    behavior: Behavior = Behavior()
    limits: Limits = Limits()
    allow_cloud: bool = False
    default_sensitivity: Sensitivity | None = None
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    cascade: str = "auto"
    hardware: Hardware = Hardware()
    warnings: tuple[str, ...] = field(default=())

    def route(self, task: str | None) -> Route:
        """The row for ``task``, or the default row."""
        return self.routes.get(task or DEFAULT_ROUTE, self.routes[DEFAULT_ROUTE])

    @property
    def probed(self) -> list[Backend]:
        """The optional backends, which are asked whether they are there; not a cloud, where
        nothing may go to one."""
        return [b for b in self.backends.values() if b.optional and (b.local or self.allow_cloud)]

    def tenant(self, name: str) -> Tenant:
        """What the tenant ``name`` may use; one that is not listed takes what ``*`` says."""
        return self.tenants.get(name) or self.tenants.get(ANY_TENANT) or _UNRESTRICTED

    def candidates(self, route: Route, tier: Tier | None) -> list[tuple[Model, bool]]:
        """(model, is it a fallback) in the order written; ``prefer_local`` sorts the fallbacks."""
        primaries = route.primaries(tier)
        chain = [name for name in route.fallback_chain if name not in primaries]
        if self.behavior.prefer_local:
            chain.sort(key=lambda name: not self.models[name].local)
        return [(self.models[name], False) for name in primaries] + [
            (self.models[name], True) for name in chain
        ]
