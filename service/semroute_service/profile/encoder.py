"""The encoder that a profile names: read, and refused where a query must not go to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semroute_classifier.documents import suggest
from semroute_classifier.encoders import RemoteModel
from semroute_service.query import Sensitivity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semroute_classifier.encoders import EncoderSpec
    from semroute_service.profile.model import Model, Tenant
    from semroute_service.profile.notes import Notes
    from semroute_service.profile.schema import ProfileSpec


def read_encoder(
    profile: ProfileSpec, models: Mapping[str, Model], tenants: Mapping[str, Tenant], notes: Notes
) -> EncoderSpec:
    """The encoder of ``profile``; ``models`` are those that have no problem of their own."""
    spec, key = profile.classifier.encoder, ("classifier", "encoder")
    if isinstance(spec, str):
        return spec
    if spec.fallback in profile.models:
        hint = "give a local encoder: auto, bundled, a folder or a hub id"
        notes.problem((*key, "fallback"), f'"{spec.fallback}" is a model; {hint}')
    if spec.model not in profile.models:
        hint = suggest(spec.model, profile.models)
        notes.problem((*key, "model"), f'there is no model "{spec.model}"{hint}')
    model = models.get(spec.model)
    if model is None:  # its own problem is told already
        return ""
    fault = _fault_of(model, profile, tenants)
    if fault:
        notes.problem((*key, "model"), f'"{model.name}" {fault}')
    backend = model.backend
    return RemoteModel(model.name, backend.url, model.id, backend.provider.key_env, spec.fallback)


def _fault_of(model: Model, profile: ProfileSpec, tenants: Mapping[str, Tenant]) -> str:
    """Why queries cannot go to ``model`` for their vectors; empty where they can."""
    backend, kind = model.backend, profile.models[model.name].kind
    asked = "because every query goes there before governance is asked"
    if kind != "embedding":
        return f"is a {kind} model; an encoder needs one of kind: embedding"
    if backend.provider.protocol == "echo":
        return "is at the built-in echo, which embeds nothing; name a model on a server"
    if backend.lacks:
        return f"has no address: {backend.lacks}"
    if not model.id:
        return "has no id; an encoder needs one, so that its model never changes unseen"
    if not backend.local:
        return f"would leave the building; an encoder must be local, {asked}"
    if backend.clearance < Sensitivity.RESTRICTED:
        return f"may not see restricted data; an encoder needs that clearance, {asked}"
    region = profile.governance.region
    if backend.region != region:
        where = region or "governance.region, which is not set"
        return f'stands in region "{backend.region}"; an encoder must stand in {where}, {asked}'
    for name, tenant in tenants.items():
        if not tenant.models.admits(model.name) or not tenant.providers.admits(backend.provider.id):
            return f'is denied to the tenant "{name}"; an encoder must be open to all, {asked}'
    return ""
