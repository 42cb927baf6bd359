"""From a profile's file to a profile, refusing whatever could not be served as written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
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
from semroute_classifier.encoders import RemoteModel
from semroute_classifier.utterances import TASK_NAME, Tier
from semroute_service.profile.addresses import completed, fault_of
from semroute_service.profile.model import (
    DEFAULT_ROUTE,
    Backend,
    Behavior,
    DeclaredGpu,
    Hardware,
    Limits,
    Model,
    Price,
    Profile,
    Route,
)
from semroute_service.profile.providers import Provider, load_providers
from semroute_service.profile.schema import (
    BackendSpec,
    ModelSpec,
    ProfileSpec,
    RouteSpec,
    SensitivityWord,
)
from semroute_service.query import Capability, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from semroute_classifier.encoders import EncoderSpec

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
    return _Reading(document, spec, dict(environment)).profile(tasks)


@dataclass
class _Reading:
    """One file on its way; gathers problems so that a person sees all of them at once."""

    document: Document
    spec: ProfileSpec
    environment: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def profile(self, tasks: Iterable[str] | None) -> Profile:
        spec, stem = self.spec, self.document.path.stem
        if spec.name and spec.name != stem:
            self._problem(("name",), f'is "{spec.name}" but the file is named "{stem}"')
        if spec.behavior.enable_caching:
            self._problem(("behavior", "enable_caching"), "answers are never cached; say false")
        backends = {
            n: b for n, s in spec.backends.items() if (b := self._backend(n, s, ("backends", n)))
        }
        models = {n: m for n, s in spec.models.items() if (m := self._model(n, s, backends))}
        encoder = self._encoder(models)
        hardware = self._hardware()
        self._known_models(("fallback_chain",), spec.fallback_chain)
        routes = {t: r for t, s in spec.routes.items() if (r := self._route(t, s, models))}
        if DEFAULT_ROUTE not in spec.routes:
            self._problem(
                ("routes",), "has no default row; add one, such as default: {model: NAME}"
            )
        if self.problems:
            raise ConfigError(self.problems)
        self._warn_of_unknown_tasks(routes, tasks)
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
            behavior=Behavior(
                prefer_local=spec.behavior.prefer_local,
                max_retries=spec.behavior.max_retries,
                timeout_seconds=spec.behavior.timeout_seconds,
            ),
            limits=Limits(
                max_per_request=_nano(spec.cost.max_per_request),
                monthly=_nano(spec.cost.monthly_limit),
            ),
            allow_cloud=spec.governance.allow_cloud,
            default_sensitivity=_sensitivity(spec.governance.default_sensitivity),
            hardware=hardware,
            warnings=tuple(self.warnings),
        )

    def _hardware(self) -> Hardware:
        spec = self.spec.hardware
        known = {name for name, provider in load_providers().items() if not provider.local} | {
            "any"
        }
        for i, name in enumerate(spec.required_cloud_apis):
            if name not in known:
                self._problem(
                    ("hardware", "required_cloud_apis", i),
                    f'there is no cloud provider "{name}"{suggest(name, known)}',
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

    def _problem(self, key: Key, message: str) -> None:
        self.problems.append(self.document.problem(key, message))

    def _warn(self, key: Key, message: str) -> None:
        self.warnings.append(str(self.document.problem(key, message)))

    def _backend(self, name: str, spec: BackendSpec, key: Key) -> Backend | None:
        """``key`` is where the backend is declared, or the model that names the provider."""
        provider = self._provider((*key, "provider"), spec.provider)
        if provider is None:
            return None
        url = self._url((*key, "url" if spec.url else "provider"), spec.url, provider)
        local = provider.local and spec.locality != "cloud"
        region = spec.region or provider.region
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
            gpu=DeclaredGpu(spec.gpu.type, spec.gpu.count, spec.gpu.memory_gb)
            if spec.gpu
            else None,
        )

    def _provider(self, key: Key, name: str) -> Provider | None:
        providers = load_providers()
        if name not in providers:
            self._problem(key, f'there is no provider "{name}"{suggest(name, providers)}')
            return None
        return providers[name]

    def _url(self, key: Key, written: str, provider: Provider) -> str:
        if provider.protocol == "echo":
            if written:
                self._problem(key, "the built-in echo has no url")
            return ""
        expanded = self._expand(key, written)
        if expanded is None:
            return ""
        url = expanded or self._own_url(provider)
        fault = fault_of(url, provider)
        if fault:
            source = "" if expanded or not provider.url_env else f" ({provider.url_env})"
            self._problem(key, fault + source)
        return url.rstrip("/")

    def _own_url(self, provider: Provider) -> str:
        override = self.environment.get(provider.url_env, "").strip() if provider.url_env else ""
        return completed(override, provider.url) if override else provider.url

    def _expand(self, key: Key, text: str) -> str | None:
        """``text`` with what its variables hold; None, told as a problem, where one is not set."""
        if "$" in _VARIABLE.sub("", text):
            self._problem(
                key, "holds a $ that names no variable; write ${NAME} or ${NAME:-default}"
            )
            return None
        found = list(_VARIABLE.finditer(text))
        unset = [m[1] for m in found if m[2] is None and not self.environment.get(m[1])]
        for name in unset:
            self._problem(key, f"the environment variable {name} is not set")
        if unset:
            return None
        return _VARIABLE.sub(lambda m: self.environment.get(m[1]) or m[2], text)

    def _model(self, name: str, spec: ModelSpec, backends: dict[str, Backend]) -> Model | None:
        key: Key = ("models", name)
        if bool(spec.backend) == bool(spec.provider):
            self._problem(key, "names a backend or a provider, one of the two")
            return None
        if spec.provider:
            backend = self._backend_of_provider(key, spec.provider)
        elif spec.backend in backends:
            backend = backends[spec.backend]
        else:
            backend = None
            if spec.backend not in self.spec.backends:
                hint = suggest(spec.backend, self.spec.backends)
                self._problem((*key, "backend"), f'"{spec.backend}" is not declared{hint}')
        if backend is None:
            return None
        if not spec.id and not backend.local:
            self._problem((*key, "id"), "is required: the name that the provider knows")
        return Model(
            name=name,
            id=spec.id,
            backend=backend,
            capabilities=_capabilities(spec, backend),
            context=spec.context,
            price=_price(spec),
        )

    def _backend_of_provider(self, key: Key, provider: str) -> Backend | None:
        if provider in self.spec.backends:
            hint = f"; write backend: {provider}"
            self._problem((*key, "provider"), f"a backend has that name too{hint}")
            return None
        return self._backend(provider, BackendSpec(provider=provider), key)

    def _encoder(self, models: dict[str, Model]) -> EncoderSpec:
        spec, key = self.spec.classifier.encoder, ("classifier", "encoder")
        if isinstance(spec, str):
            return spec
        if spec.fallback in self.spec.models:
            hint = "give a local encoder: auto, bundled, a folder or a hub id"
            self._problem((*key, "fallback"), f'"{spec.fallback}" is a model; {hint}')
        if spec.model not in self.spec.models:
            hint = suggest(spec.model, self.spec.models)
            self._problem((*key, "model"), f'there is no model "{spec.model}"{hint}')
        model = models.get(spec.model)
        if model is None:  # its own problem is told already
            return ""
        fault = self._fault_of_encoder(model)
        if fault:
            self._problem((*key, "model"), f'"{model.name}" {fault}')
        backend = model.backend
        return RemoteModel(
            model.name, backend.url, model.id, backend.provider.key_env, spec.fallback
        )

    def _fault_of_encoder(self, model: Model) -> str:
        """Why queries cannot go to ``model`` for their vectors; empty where they can."""
        backend, kind = model.backend, self.spec.models[model.name].kind
        asked = "because every query goes there before governance is asked"
        if kind != "embedding":
            return f"is a {kind} model; an encoder needs one of kind: embedding"
        if backend.provider.protocol == "echo":
            return "is at the built-in echo, which embeds nothing; name a model on a server"
        if not model.id:
            return "has no id; an encoder needs one, so that its model never changes unseen"
        if not backend.local:
            return f"would leave the building; an encoder must be local, {asked}"
        if backend.clearance < Sensitivity.RESTRICTED:
            return f"may not see restricted data; an encoder needs that clearance, {asked}"
        region = self.spec.governance.region
        if region and backend.region != region:
            return (
                f'stands in region "{backend.region}"; an encoder must stand in {region}, {asked}'
            )
        return ""

    def _known_models(self, key: Key, names: Iterable[str]) -> bool:
        known = True
        for i, name in enumerate(names):
            if name not in self.spec.models:
                self._problem(
                    (*key, i), f'there is no model "{name}"{suggest(name, self.spec.models)}'
                )
                known = False
        return known

    def _route(self, task: str, spec: RouteSpec, models: dict[str, Model]) -> Route | None:
        key: Key = ("routes", task)
        if not TASK_NAME.fullmatch(task) or task == "none":
            self._problem(key, f'"{task}" is no task name')
        tiers = self._tiers(key, spec)
        chain = self.spec.fallback_chain if spec.fallback_chain is None else spec.fallback_chain
        known = self._known_models((*key, "fallback_chain"), spec.fallback_chain or ())
        allow_cloud = self._narrowed(key, "allow_cloud", spec.allow_cloud, self._profile_allows)
        fallback_to_cloud = self._narrowed(
            key, "fallback_to_cloud", spec.fallback_to_cloud, allow_cloud
        )
        if not tiers or not known or not set(chain) <= set(models):
            return None
        route = Route(
            task=task,
            tiers=tiers,
            fallback_chain=tuple(dict.fromkeys(chain)),
            allow_cloud=allow_cloud,
            fallback_to_cloud=fallback_to_cloud,
            local_only_reason=spec.local_only_reason,
            max_tokens=spec.max_tokens,
            temperature=spec.temperature,
        )
        if all(name in models for names in tiers.values() for name in names):
            self._check_reachable(key, route, models)
        return route

    @property
    def _profile_allows(self) -> bool:
        return self.spec.governance.allow_cloud

    def _narrowed(self, key: Key, name: str, written: bool | None, outer: bool) -> bool:
        """What a row says, or what it inherits; a row may only narrow."""
        if written and not outer:
            above = "governance.allow_cloud" if name == "allow_cloud" else "the row's allow_cloud"
            self._problem((*key, name), f"widens what {above} allows, which is false")
        return outer if written is None else written and outer

    def _tiers(self, key: Key, spec: RouteSpec) -> dict[Tier, tuple[str, ...]]:
        if bool(spec.model) == bool(spec.tiers):
            self._problem(key, "gives a model or tiers, one of the two")
            return {}
        if spec.model:
            if spec.model not in self.spec.models:
                hint = suggest(spec.model, self.spec.models)
                self._problem((*key, "model"), f'there is no model "{spec.model}"{hint}')
                return {}
            return dict.fromkeys(Tier, (spec.model,))
        assert spec.tiers
        lists = {
            Tier.LOW: spec.tiers.low,
            Tier.MEDIUM: spec.tiers.medium,
            Tier.HIGH: spec.tiers.high,
        }
        if not any(lists.values()):
            self._problem((*key, "tiers"), "lists no model; give low, medium or high")
        known = [self._known_models((*key, "tiers", t.word), names) for t, names in lists.items()]
        if not all(known):
            return {}
        return {tier: tuple(dict.fromkeys(names)) for tier, names in lists.items() if names}

    def _check_reachable(self, key: Key, route: Route, models: dict[str, Model]) -> None:
        """Refuse a row, in any of its tiers, that governance could never let anyone serve."""
        chain = [
            self._never(models[name], route.fallback_to_cloud) for name in route.fallback_chain
        ]
        never: dict[str, str] = {}
        for tier, names in route.tiers.items():
            reasons = {name: self._never(models[name], route.allow_cloud) for name in names}
            if all([*reasons.values(), *chain]):
                why = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
                self._problem(key, f"can never be served at tier {tier.word}: {why}")
                return
            never |= {name: reason for name, reason in reasons.items() if reason}
        for name, reason in sorted(never.items()):
            self._warn(key, f"{name} is never admitted here: it {reason}")

    def _never(self, model: Model, allow_cloud: bool) -> str:
        """Why governance could never admit ``model``; empty where it could."""
        if not model.local and not allow_cloud:
            return (
                "would leave the building, which the row does not allow; "
                "name a local model or allow_cloud"
            )
        cost = self.spec.cost
        limited = cost.max_per_request is not None or cost.monthly_limit is not None
        if limited and model.effective_price is None:
            return "has no price, and the profile limits the cost; give it a price"
        return ""

    def _warn_of_unknown_tasks(
        self, routes: Mapping[str, Route], tasks: Iterable[str] | None
    ) -> None:
        if tasks is None:
            return
        known = {*tasks, DEFAULT_ROUTE}
        for task in routes.keys() - known:
            self._warn(("routes", task), f"no utterances teach this task{suggest(task, known)}")


def _capabilities(spec: ModelSpec, backend: Backend) -> frozenset[Capability]:
    if spec.kind == "embedding":
        return spec.capabilities | {Capability.EMBEDDING}
    if spec.kind == "guard":
        return spec.capabilities
    return spec.capabilities | backend.provider.capabilities | {Capability.CHAT}


def _price(spec: ModelSpec) -> Price | None:
    if spec.price is None:
        return None
    return Price(round(spec.price.input * _NANO), round(spec.price.output * _NANO))


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _NANO)


def _sensitivity(word: SensitivityWord | None) -> Sensitivity | None:
    return Sensitivity[word.upper()] if word else None
