"""Who could answer: a profile is a policy, read from a YAML file and checked before it serves."""

from semroute_service.profile.model import (
    ANY_TENANT,
    DEFAULT_ROUTE,
    Backend,
    Behavior,
    DeclaredGpu,
    Hardware,
    Limits,
    Model,
    Names,
    Price,
    Profile,
    Route,
    Tenant,
)
from semroute_service.profile.providers import Provider, load_providers
from semroute_service.profile.reading import load_profile, load_profiles
from semroute_service.profile.store import ProfileStore

__all__ = [
    "ANY_TENANT",
    "DEFAULT_ROUTE",
    "Backend",
    "Behavior",
    "DeclaredGpu",
    "Hardware",
    "Limits",
    "Model",
    "Names",
    "Price",
    "Profile",
    "ProfileStore",
    "Provider",
    "Route",
    "Tenant",
    "load_profile",
    "load_profiles",
    "load_providers",
]
