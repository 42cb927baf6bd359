"""Who may answer: every candidate passes the same rules, wherever it comes from.

A rule is a small function with a name: it looks at one candidate and the request and returns the
reason for a denial, or None. Its docstring is the sentence by which people know it. A rule that
cannot be evaluated denies. The first rule that denies is the one reported. Nothing reaches a
backend without a fresh ``screen``: not a first choice, not a fallback, not a model that the
caller names.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from semroute_service.decision import Candidate
from semroute_service.query import Capability, Sensitivity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from semroute_service.profile import Model, Profile, Route
    from semroute_service.query import Caller, Parameter

_log = logging.getLogger(__name__)

DEFAULT_OUTPUT_TOKENS = 4096
"""How long an answer is taken to be, and where money is limited is let be, if nobody says."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and by whom. ``max_cost`` is in nano-USD.

    ``parameters`` are those that the caller sets, not what the row sets where the caller does not.
    """

    profile: Profile
    route: Route
    caller: Caller
    needs: frozenset[Capability]
    parameters: frozenset[Parameter]
    prompt_tokens: int
    max_tokens: int | None
    max_cost: int | None


@dataclass(frozen=True, slots=True)
class Context(Case):
    """Everything a rule may ask about: the case, and the facts as they are at this moment.

    ``budget_left`` is in nano-USD, and None where the profile has no monthly limit.
    """

    budget_left: int | None
    has_credentials: Callable[[Model], bool]
    is_absent: Callable[[Model], bool]

    @property
    def sensitivity(self) -> Sensitivity | None:
        """The caller's, or the profile's default; None restricts nothing."""
        return self.caller.sensitivity or self.profile.default_sensitivity

    def estimate(self, model: Model) -> int | None:
        """The most that this request is expected to cost with ``model``; None if unknown."""
        price = model.effective_price
        usual = DEFAULT_OUTPUT_TOKENS + model.thinking_tokens
        tokens = usual if self.max_tokens is None else self.max_tokens
        return None if price is None else price.cost(self.prompt_tokens, tokens)


Rule: TypeAlias = "Callable[[Candidate, Context], str | None]"

RULES: dict[str, Rule] = {}
"""Every rule by name, in the order in which they are asked."""


def rule(function: Rule) -> Rule:
    """Register ``function`` under its own name."""
    RULES[function.__name__] = function
    return function


def rules() -> dict[str, str]:
    """Every rule's name with what it holds, in words, in the order in which they are asked."""
    return {name: " ".join((inspect.getdoc(each) or "").split()) for name, each in RULES.items()}


def screen(models: Iterable[tuple[Model, bool]], context: Context) -> tuple[Candidate, ...]:
    """Rule on every (model, is it a fallback), keeping the order."""
    return tuple(judge(Candidate(model, fallback), context) for model, fallback in models)


def judge(candidate: Candidate, context: Context) -> Candidate:
    """``candidate`` with a fresh ruling; whatever ruling it had before counts for nothing."""
    denied, why = "", ""
    for name, ask in RULES.items():
        try:
            reason = ask(candidate, context)
        except Exception as error:
            reason = _failed(name, candidate, error)
        if reason is not None:
            denied, why = name, reason
            break
    return Candidate(
        model=candidate.model,
        is_fallback=candidate.is_fallback,
        rule=denied,
        reason=why,
        estimated_cost=context.estimate(candidate.model),
        unavailable=candidate.unavailable,
    )


def _failed(name: str, candidate: Candidate, error: Exception) -> str:
    """A rule that fails denies, and keeps to itself what it failed on."""
    _log.error("the rule %s failed on %s: %s", name, candidate.model.name, type(error).__name__)
    return "cannot be evaluated, and what cannot be evaluated is denied"


@rule
def local_only(candidate: Candidate, context: Context) -> str | None:
    """A caller that asks for local models gets no other."""
    if context.caller.local_only and not candidate.model.local:
        return "the caller allows local models only"
    return None


@rule
def allow_cloud(candidate: Candidate, context: Context) -> str | None:
    """A query leaves the building only where the profile, the row and the tenant all allow it."""
    if candidate.model.local:
        return None
    profile, route = context.profile, context.route
    if not profile.allow_cloud or not route.allow_cloud:
        if route.local_only_reason:
            return f"the row {route.task} stays in the building: {route.local_only_reason}"
        closed = f"row {route.task}" if profile.allow_cloud else f"profile {profile.name}"
        return f"the {closed} does not allow the cloud"
    if not profile.tenant(context.caller.tenant).allow_cloud:
        return f"{_tenant(context)} may not use the cloud"
    return None


@rule
def fallback_to_cloud(candidate: Candidate, context: Context) -> str | None:
    """A row that keeps its fallbacks at home falls back to local models only."""
    if not candidate.is_fallback or candidate.model.local or context.route.fallback_to_cloud:
        return None
    return f"the row {context.route.task} does not fall back to the cloud"


@rule
def tenant_models(candidate: Candidate, context: Context) -> str | None:
    """A tenant uses only the models that its lists let it use."""
    name = candidate.model.name
    if context.profile.tenant(context.caller.tenant).models.admits(name):
        return None
    return f"{_tenant(context)} may not use the model {name}"


@rule
def tenant_providers(candidate: Candidate, context: Context) -> str | None:
    """A tenant uses only the providers that its lists let it use."""
    name = candidate.model.backend.provider.id
    if context.profile.tenant(context.caller.tenant).providers.admits(name):
        return None
    return f"{_tenant(context)} may not use the provider {name}"


@rule
def residency(candidate: Candidate, context: Context) -> str | None:
    """Data that must stay in a region goes only where the region is known and the same."""
    wanted = context.caller.region.casefold()
    if not wanted:
        return None
    region = candidate.model.backend.region.casefold()
    if not region:
        return f"the region of {candidate.model.backend.name} is not declared; {wanted} is required"
    if region == wanted or region.startswith(f"{wanted}-"):
        return None
    return f"{candidate.model.backend.name} stands in {region}; {wanted} is required"


@rule
def sensitivity(candidate: Candidate, context: Context) -> str | None:
    """Data goes only where the clearance is at least its sensitivity."""
    needed, has = context.sensitivity, candidate.model.backend.clearance
    if needed is None or has >= needed:
        return None
    return (
        f"{candidate.model.backend.name} is cleared for {has.name.lower()} data, "
        f"not {needed.name.lower()}"
    )


@rule
def capability(candidate: Candidate, context: Context) -> str | None:
    """A model can do what the request needs; what it does not declare it cannot do."""
    missing = sorted(context.needs - candidate.model.capabilities)
    return f"{candidate.model.name} does not declare {', '.join(missing)}" if missing else None


@rule
def parameters(candidate: Candidate, context: Context) -> str | None:
    """A model takes every parameter that the request sets; what its provider refuses is not
    dropped."""
    refused = sorted(context.parameters & candidate.model.refuses)
    if refused:
        return f"{candidate.model.name} does not take {', '.join(refused)}"
    thinking, most = candidate.model.thinking_tokens, context.max_tokens
    if most is not None and 0 < most <= thinking:
        return f"max_tokens of {most} leaves no answer beside {thinking} tokens of thinking"
    return None


@rule
def context_length(candidate: Candidate, context: Context) -> str | None:
    """The conversation and its answer fit into the context; an undeclared one is not screened."""
    window = candidate.model.context
    if window is None or Capability.CHAT not in context.needs:
        return None
    wanted = context.prompt_tokens + (context.max_tokens or 0)
    if wanted <= window:
        return None
    return f"about {wanted} tokens do not fit into the context of {window}"


@rule
def max_cost(candidate: Candidate, context: Context) -> str | None:
    """No request costs more than the profile or the caller allows; its price must be known."""
    if context.max_cost is None:
        return None
    estimate = context.estimate(candidate.model)
    if estimate is None:
        return _unpriced(candidate)
    if estimate <= context.max_cost:
        return None
    return f"would cost up to {_usd(estimate)}; the limit is {_usd(context.max_cost)}"


@rule
def monthly_limit(candidate: Candidate, context: Context) -> str | None:
    """The profile's month has the money left that the request may cost; its price must be known."""
    if context.budget_left is None:
        return None
    estimate = context.estimate(candidate.model)
    if estimate is None:
        return _unpriced(candidate)
    if not estimate or estimate <= context.budget_left:
        return None
    return f"would cost up to {_usd(estimate)}; {_usd(context.budget_left)} is left this month"


@rule
def no_credentials(candidate: Candidate, context: Context) -> str | None:
    """A provider is of no use without the key, or the account, that it needs."""
    if context.has_credentials(candidate.model):
        return None
    backend = candidate.model.backend
    return backend.lacks or f"{' or '.join(backend.provider.key_env)} is not set"


@rule
def not_running(candidate: Candidate, context: Context) -> str | None:
    """An optional backend counts only while it answers."""
    if not context.is_absent(candidate.model):
        return None
    return "not running"


def _tenant(context: Context) -> str:
    tenant = context.caller.tenant
    return f"the tenant {tenant}" if tenant else "a caller that names no tenant"


def _unpriced(candidate: Candidate) -> str:
    return f"the price of {candidate.model.name} is not known, and the cost is limited"


def _usd(nano: int) -> str:
    return f"{nano / 1e9:.6f}".rstrip("0").rstrip(".") + " USD"
