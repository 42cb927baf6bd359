"""Who could answer: a profile is a policy, read from a YAML file and checked before it serves."""

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
from semroute_service.profile.reading import load_profile, load_profiles
from semroute_service.profile.store import ProfileStore

__all__ = [
    "DEFAULT_ROUTE",
    "Backend",
    "Behavior",
    "DeclaredGpu",
    "Hardware",
    "Limits",
    "Model",
    "Price",
    "Profile",
    "ProfileStore",
    "Provider",
    "Route",
    "load_profile",
    "load_profiles",
    "load_providers",
]
