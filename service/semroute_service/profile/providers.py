"""The catalogue of providers: data that the package ships."""

from __future__ import annotations

import datetime
import functools
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from semroute_classifier.documents import read_yaml
from semroute_service.query import Capability, Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping


class Quirks(BaseModel):
    """What some models want otherwise than the protocol says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rename: dict[Parameter, str] = Field(default={})
    """Parameters that go by another name there."""
    refuse: frozenset[Parameter] = frozenset()
    """Parameters that are answered with an error, so that a request that sets one is denied."""


class Provider(BaseModel):
    """Facts about one provider of models; what a backend needs to speak to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = ""
    name: str
    protocol: Literal["openai_chat", "anthropic_messages", "litellm", "echo"]
    url: str = ""
    """Base URL; empty where only the profile can know it."""
    url_env: str = ""
    """Environment variable that overrides the base URL."""
    health: str = ""
    """Path of what says whether a server is well, at its root beside /v1; empty where none is."""
    locality: Literal["local", "cloud"]
    region: str = ""
    key_env: tuple[str, ...] = ()
    """Environment variables that may hold the key; the first one set is used."""
    key_required: bool = True
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    """The header that carries the key, and what stands before the key in it."""
    headers: dict[str, str] = Field(default={})
    """Headers that every request carries."""
    secret_headers: dict[str, str] = Field(default={})
    """Further headers, by the environment variable that each is read from when it is used."""
    usage: Literal["asked", "unasked"] = "asked"
    """Whether usage must be asked for with stream_options.include_usage, or comes by itself."""
    quirks: Quirks = Quirks()
    """What all its models want otherwise."""
    models: dict[str, Quirks] = Field(default={})
    """The same for models whose id matches a shell pattern, beside what holds for all."""
    capabilities: frozenset[Capability] = frozenset()
    """What every model of this provider can do, beside chat."""
    docs: str = ""
    verified: datetime.date | None = None

    def __hash__(self) -> int:
        return hash(self.id)

    def quirks_of(self, model: str) -> Quirks:
        """What the model with the id ``model`` wants otherwise."""
        found = [self.quirks, *(q for p, q in self.models.items() if fnmatchcase(model, p))]
        return Quirks(
            rename={name: field for quirks in found for name, field in quirks.rename.items()},
            refuse=frozenset().union(*(quirks.refuse for quirks in found)),
        )

    @property
    def local(self) -> bool:
        return self.locality == "local"

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """The key, read when it is used; empty where none is set."""
        return next((environment[name] for name in self.key_env if environment.get(name)), "")

    def has_credentials(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether a call could be made at all."""
        return not self.key_env or not self.key_required or bool(self.key(environment))


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid")

    providers: dict[str, Provider] = Field(min_length=1)


_CATALOGUE = Path(__file__).with_name("providers.yaml")


@functools.cache
def load_providers() -> dict[str, Provider]:
    """Every provider by id; raises ``ConfigError`` where the file is wrong."""
    catalogue = read_yaml(_CATALOGUE).parse(_Catalogue)
    return {
        name: provider.model_copy(update={"id": name})
        for name, provider in catalogue.providers.items()
    }
