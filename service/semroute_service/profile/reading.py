"""From a profile's file to a profile, refusing whatever could not be served as written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from semroute_classifier.documents import (
    ConfigError,
    Document,
    Key,
    Problem,
    read_yaml,
    suggest,
    yaml_files,
)
from semroute_service.profile.addresses import address_of, fault_of, region_of, with_model
from semroute_service.profile.bodies import fault_of_field
from semroute_service.profile.encoder import read_encoder
from semroute_service.profile.model import (
    ANY_TENANT,
    Backend,
    Behavior,
    DeclaredGpu,
    Hardware,
    Limits,
    Model,
    Names,
    Price,
    Profile,
    Tenant,
)
from semroute_service.profile.notes import Notes
from semroute_service.profile.providers import Provider, Speed, load_providers
from semroute_service.profile.registry import with_registered
from semroute_service.profile.rows import RowReader
from semroute_service.profile.schema import (
    BackendSpec,
    BehaviorSpec,
    ModelSpec,
    NamesSpec,
    ProfileSpec,
    SensitivityWord,
    TenantSpec,
)
from semroute_service.query import Capability, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


_NANO = 1_000_000_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def load_profiles(
    folder: Path,
    tasks: Iterable[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Profile]:
    """Every ``*.yaml`` of ``folder`` by name; raises ``ConfigError`` with every problem.

    With ``tasks``, a row for a task that has no utterances is a warning of its profile.
    """
    load_providers(environment)  # what is wrong in a site's own file is told once
    profiles: dict[str, Profile] = {}
    problems: list[Problem] = []
    for path in yaml_files(folder, "profile (<name>.yaml)"):
        try:
            profile = load_profile(path, tasks, environment)
        except ConfigError as error:
            problems.extend(error.problems)
        else:
            profiles[profile.name] = profile
    if problems:
        raise ConfigError(problems)
    return profiles


def load_profile(
    path: Path,
    tasks: Iterable[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Profile:
    """One profile; raises ``ConfigError`` with every problem found in it."""
    document = read_yaml(path)
    spec = document.parse(ProfileSpec)
    return _Reading(document, spec, environment, Notes(document)).profile(tasks)


@dataclass
class _Reading:
    """One file on its way."""

    document: Document
    spec: ProfileSpec
    environment: Mapping[str, str]
    notes: Notes

    def __post_init__(self) -> None:
        self.providers = load_providers(self.environment)
        self.registered = with_registered(self.environment)

    def profile(self, tasks: Iterable[str] | None) -> Profile:
        spec, stem = self.spec, self.document.path.stem
        if spec.name and spec.name != stem:
            self.notes.problem(("name",), f'is "{spec.name}" but the file is named "{stem}"')
        if spec.behavior.enable_caching:
            self.notes.problem(
                ("behavior", "enable_caching"), "answers are never cached; say false"
            )
        backends = {
            n: b for n, s in spec.backends.items() if (b := self._backend(n, s, ("backends", n)))
        }
        models = {n: m for n, s in spec.models.items() if (m := self._model(n, s, backends))}
        tenants = {n: self._tenant(n, s) for n, s in spec.governance.tenants.items()}
        encoder = read_encoder(spec, models, tenants, self.notes)
        hardware = self._hardware()
        routes = RowReader(spec, models, self.notes).rows(tasks)
        if self.notes.problems:
            raise ConfigError(self.notes.problems)
        return Profile(
            name=stem,
            description=spec.description,
            version=spec.version,
            revision=self._revision(),
            encoder=encoder,
            cascade=spec.classifier.cascade,
            models=models,
            routes=routes,
            backends={m.backend.name: m.backend for m in models.values()} | backends,
            behavior=_behavior(spec.behavior),
            limits=Limits(
                max_per_request=_nano(spec.cost.max_per_request),
                monthly=_nano(spec.cost.monthly_limit),
            ),
            allow_cloud=spec.governance.allow_cloud,
            default_sensitivity=_sensitivity(spec.governance.default_sensitivity),
            tenants=tenants,
            hardware=hardware,
            warnings=tuple(self.notes.warnings),
        )

    def _hardware(self) -> Hardware:
        spec = self.spec.hardware
        clouds = {name for name, p in self.providers.items() if not p.local and p.key_env}
        self.notes.known(
            ("hardware", "required_cloud_apis"),
            spec.required_cloud_apis,
            clouds | {"any"},
            "cloud provider",
        )
        return Hardware(
            rank=spec.rank,
            gpu_types=tuple(spec.gpu_types),
            min_gpu_memory_gb=spec.min_gpu_memory_gb,
            cloud_keys=tuple(spec.required_cloud_apis),
            slurm=spec.requires_slurm,
        )

    def _revision(self) -> str:
        content = json.dumps(self.document.data, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def _backend(self, name: str, spec: BackendSpec, key: Key) -> Backend | None:
        """``key`` is where the backend is declared, or the model that names the provider."""
        provider = self._provider((*key, "provider"), spec.provider)
        if provider is None:
            return None
        if provider.deprecated:
            self.notes.warn((*key, "provider"), provider.deprecated)
        url, lacks = self._url((*key, "url" if spec.url else "provider"), spec.url, provider)
        local = provider.local and spec.locality != "cloud"
        region = spec.region or region_of(provider, self.environment)
        if local:
            region = spec.region or self.spec.governance.region
        clearance = _sensitivity(spec.clearance)
        return Backend(
            name=name,
            provider=provider,
            url=url,
            local=local,
            region=region,
            # What stays in the building may see anything; what leaves it, only what is public.
            clearance=clearance or (Sensitivity.RESTRICTED if local else Sensitivity.PUBLIC),
            optional=spec.optional,
            gpu=DeclaredGpu(**spec.gpu.model_dump()) if spec.gpu else None,
            slurm=spec.slurm,
            url_variable=next((found[1] for found in _VARIABLE.finditer(spec.url)), ""),
            lacks=lacks,
        )

    def _provider(self, key: Key, name: str) -> Provider | None:
        if name not in self.providers:
            hint = suggest(name, self.providers)
            self.notes.problem(key, f'there is no provider "{name}"{hint}')
            return None
        return self.providers[name]

    def _url(self, key: Key, written: str, provider: Provider) -> tuple[str, str]:
        """Where the backend stands, and what must be set before that is known."""
        if provider.protocol == "echo":
            if written:
                self.notes.problem(key, "the built-in echo has no url")
            return "", ""
        url, lacks = self._expand(key, written), ""
        if url is None:
            return "", ""
        source = "" if url or not provider.url_env else f" ({provider.url_env})"
        try:
            # Where a cloud stands is not for those to say who register servers.
            known = self.registered if provider.local else self.environment
            url, lacks = (url, "") if url else address_of(provider, known)
        except ValueError as error:
            self.notes.problem(key, str(error))
            return "", ""
        if provider.protocol == "litellm" and find_spec("litellm") is None:
            lacks = "the package litellm is not installed (pip install 'semroute[litellm]')"
        needs_none = provider.protocol == "litellm" and not url
        if not lacks and not needs_none and (fault := fault_of(url, provider)):
            self.notes.problem(key, fault + source)
        return url.rstrip("/"), lacks

    def _expand(self, key: Key, text: str) -> str | None:
        """``text`` with what its variables hold; None, told as a problem, where one is not set."""
        if "$" in _VARIABLE.sub("", text):
            self.notes.problem(
                key, "holds a $ that names no variable; write ${NAME} or ${NAME:-default}"
            )
            return None
        found = list(_VARIABLE.finditer(text))
        unset = [m[1] for m in found if m[2] is None and not self.registered.get(m[1])]
        for name in unset:
            self.notes.problem(key, f"the environment variable {name} is not set")
        if unset:
            return None
        return _VARIABLE.sub(lambda m: self.registered.get(m[1]) or m[2], text)

    def _model(self, name: str, spec: ModelSpec, backends: dict[str, Backend]) -> Model | None:
        key: Key = ("models", name)
        if bool(spec.backend) == bool(spec.provider):
            self.notes.problem(key, "names a backend or a provider, one of the two")
            return None
        if spec.provider:
            backend = self._backend_of_provider(key, spec.provider)
        elif spec.backend in backends:
            backend = backends[spec.backend]
        else:
            backend = None
            if spec.backend not in self.spec.backends:
                hint = suggest(spec.backend, self.spec.backends)
                self.notes.problem((*key, "backend"), f'"{spec.backend}" is not declared{hint}')
        if backend is None:
            return None
        for field in sorted(spec.extra_body):
            if fault := fault_of_field(field, backend.provider.protocol):
                self.notes.problem((*key, "extra_body", field), fault)
        if not spec.id and not backend.local:
            self.notes.problem((*key, "id"), "is required: the name that the provider knows")
        return Model(
            name=name,
            id=spec.id,
            backend=self._as_met(key, backend, spec.id),
            capabilities=_capabilities(spec, backend),
            context=spec.context,
            price=_price(spec, backend),
            quantization=spec.quantization,
            extra_body=spec.extra_body,
            quality=spec.quality,
            speed=_speed(spec, backend),
            first_token=None if self._sets_timeout else backend.provider.timeout_seconds,
            serve=spec.serve,
        )

    @property
    def _sets_timeout(self) -> bool:
        behavior = self.spec.behavior
        return "timeout_seconds" in behavior.model_fields_set or bool(behavior.clocks.first_token)

    def _as_met(self, key: Key, backend: Backend, model: str) -> Backend:
        """``backend`` as the model with this id meets it: its own address, and its own region."""
        declared = self.spec.backends.get(backend.name)
        region = backend.provider.quirks_of(model).region
        if region is not None and not (declared and declared.region):
            backend = replace(backend, region=region)
        try:
            return replace(backend, url=with_model(backend.url, model))
        except ValueError as error:
            self.notes.problem((*key, "id"), str(error))
            return backend

    def _backend_of_provider(self, key: Key, provider: str) -> Backend | None:
        if provider in self.spec.backends:
            hint = f"; write backend: {provider}"
            self.notes.problem((*key, "provider"), f"a backend has that name too{hint}")
            return None
        return self._backend(provider, BackendSpec(provider=provider), key)

    def _tenant(self, name: str, spec: TenantSpec) -> Tenant:
        key: Key = ("governance", "tenants", name)
        if not name:
            hint = f'"{ANY_TENANT}" holds for callers that name no tenant'
            self.notes.problem(key, f"a tenant has a name; {hint}")
        return Tenant(
            allow_cloud=self.notes.narrowed(
                (*key, "allow_cloud"),
                spec.allow_cloud,
                self.spec.governance.allow_cloud,
                "governance.allow_cloud",
            ),
            models=self._names((*key, "models"), spec.models, self.spec.models, "model"),
            providers=self._names((*key, "providers"), spec.providers, self.providers, "provider"),
        )

    def _names(self, key: Key, spec: NamesSpec, known: Iterable[str], what: str) -> Names:
        self.notes.known((*key, "allow"), spec.allow or (), known, what)
        self.notes.known((*key, "deny"), spec.deny, known, what)
        return Names(None if spec.allow is None else frozenset(spec.allow), frozenset(spec.deny))


def _capabilities(spec: ModelSpec, backend: Backend) -> frozenset[Capability]:
    if spec.kind == "embedding":
        return spec.capabilities | {Capability.EMBEDDING}
    if spec.kind == "guard":
        return spec.capabilities
    return spec.capabilities | backend.provider.capabilities | {Capability.CHAT}


def _price(spec: ModelSpec, backend: Backend) -> Price | None:
    """The profile's own, or else what the provider published for this id."""
    price = spec.price or backend.provider.prices.get(spec.id)
    return Price(round(price.input * _NANO), round(price.output * _NANO)) if price else None


def _speed(spec: ModelSpec, backend: Backend) -> Speed | None:
    """The profile's own, or else what is reported of the provider."""
    return Speed(**spec.speed.model_dump()) if spec.speed else backend.provider.speed


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _NANO)


def _sensitivity(word: SensitivityWord | None) -> Sensitivity | None:
    return Sensitivity[word.upper()] if word else None


def _behavior(spec: BehaviorSpec) -> Behavior:
    """A clock that is not set follows ``timeout_seconds``, or those of tokens."""
    clocks, usual = spec.clocks, spec.timeout_seconds
    first, between = clocks.first_token or usual, clocks.idle_tokens or usual
    return Behavior(
        prefer_local=spec.prefer_local,
        max_retries=spec.max_retries,
        connect=clocks.connect,
        headers=clocks.headers or first,
        first_token=first,
        idle_bytes=clocks.idle_bytes or max(first, between),
        idle_tokens=between,
        total=clocks.total,
        hedge_after=spec.hedge_after_seconds,
        reroute_filtered=spec.reroute_filtered,
        objective=spec.objective,
    )
