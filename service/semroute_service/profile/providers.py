"""The catalogue of providers: data that the package ships, and what a site adds in its own file."""

from __future__ import annotations

import datetime
import functools
import os
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from semroute_classifier.documents import ConfigError, Document, Problem, read_yaml
from semroute_service.profile.addresses import fault_of_template, variables_of
from semroute_service.profile.bodies import fault_of_field, joined
from semroute_service.profile.part import Money, Positive
from semroute_service.query import Capability, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from semroute_classifier.documents import Key

SITE_FILE = "SEMROUTE_PROVIDERS"
"""The environment variable that names a site's own file of providers."""

Texts = Annotated[tuple[str, ...], Field(strict=False)]
ParameterWord = Annotated[Parameter, Field(strict=False)]


class _Entry(BaseModel):
    """Unknown keys and wrong types are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Quirks(_Entry):
    """What some models want otherwise than the protocol says."""

    rename: dict[ParameterWord, str] = Field(default={})
    """Parameters that go by another name there."""
    refuse: Annotated[frozenset[ParameterWord], Field(strict=False)] = frozenset()
    """Parameters that are answered with an error, so that a request that sets one is denied."""
    region: str | None = None
    """Where these models answer, where that is not where the provider does; empty is anywhere."""


class PublishedPrice(_Entry):
    """USD per million tokens, as they were published."""

    input: Money
    """For what is sent."""
    output: Money
    """For what is answered."""
    date: datetime.date
    """The day on which it was taken from its source."""
    source: str = Field(min_length=1)
    """Where it was published."""


class Speed(_Entry):
    """What is reported of a provider; it counts until calls have been measured."""

    first_token_seconds: Positive
    """Until the first token."""
    tokens_per_second: Positive | None = None
    """After it."""


class Provider(_Entry):
    """Facts about one provider of models; what a backend needs to speak to it.

    It holds the names of environment variables and never what is in them.
    """

    id: str = ""
    """Its key in the file; not written a second time."""
    name: str = Field(min_length=1)
    """Its name for people."""
    protocol: Literal["openai_chat", "anthropic_messages", "litellm", "echo"]
    """How it is spoken to."""
    url: str = ""
    """Base URL; empty where only the profile can know it. It may hold ${NAME} from the environment
    within a label of the host or a part of the path, and {model}, the model's id, in the path."""
    url_env: str = ""
    """Environment variable that overrides the base URL."""
    domains: Texts = ()
    """Domains that are the provider's, too; an address from ``url_env`` lies in one of them, or
    where ``url`` does, unless the provider is local."""
    health: str = ""
    """Path of what says whether a server is well, at its root beside /v1; empty where none is."""
    metrics: str = ""
    """Path of the server's own figures, for Prometheus, at its root; empty where there are none."""
    waiting_metric: str = ""
    """The figure there that counts the requests that wait."""
    locality: Literal["local", "cloud"]
    """Whether what is sent stays in the building."""
    region: str = ""
    """Where it answers; it may hold ${NAME} from the environment."""
    key_env: Texts = ()
    """Environment variables that may hold the key; the first one set is used."""
    key_required: bool = True
    """Whether nothing can be asked without the key."""
    key_header: str = "authorization"
    """The header that carries the key."""
    key_prefix: str = "Bearer "
    """What stands before the key in it."""
    headers: dict[str, str] = Field(default={})
    """Headers that every request carries."""
    secret_headers: dict[str, str] = Field(default={})
    """Further headers, each with the environment variable that its value is read from when it is
    used; one whose variable is not set is left out."""
    timeout_seconds: Positive | None = None
    """How long its first token may take where the profile sets no timeout."""
    usage: Literal["asked", "unasked"] = "asked"
    """Whether usage must be asked for with stream_options.include_usage, or comes by itself."""
    finish_reasons: dict[str, Literal["stop", "length", "tool_calls", "content_filter"]] = Field(
        default={}
    )
    """Its own words for how an answer ended, and what they mean."""
    body: dict[str, JsonValue] = Field(default={})
    """Further fields of every chat request, where the model's extra_body does not say otherwise.
    They replace nothing that the request sets."""
    quirks: Quirks = Quirks()
    """What all its models want otherwise."""
    models: dict[str, Quirks] = Field(default={})
    """The same for models whose id matches a shell pattern, beside what holds for all."""
    capabilities: Annotated[
        frozenset[Annotated[Capability, Field(strict=False)]], Field(strict=False)
    ] = frozenset()
    """What every model of this provider can do, beside chat."""
    prices: dict[str, PublishedPrice] = Field(default={})
    """Published prices by the model's id; a profile's own price goes before them."""
    speed: Speed | None = None
    """What is reported of its speed."""
    deprecated: str = ""
    """Why it should not be used any more; profiles that name it are warned."""
    notes: Texts = ()
    """What a person should know, a sentence each."""
    docs: str = ""
    """Its documentation."""
    verified: datetime.date | None = None
    """The day on which this entry was last held against its documentation."""

    def __hash__(self) -> int:
        return hash(self.id)

    def quirks_of(self, model: str) -> Quirks:
        """What the model with the id ``model`` wants otherwise."""
        return _quirks_of(self, model)

    def body_with(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Its further fields and a model's ``extra``, which goes before them."""
        return joined(self.body, extra)

    @property
    def local(self) -> bool:
        return self.locality == "local"

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that its address needs."""
        return variables_of(self.url)

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """The key, read when it is used; empty where none is set."""
        keys = (environment.get(name, "").strip() for name in self.key_env)
        return next(filter(None, keys), "")

    def has_credentials(self, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether a call could be made at all."""
        return not self.key_env or not self.key_required or bool(self.key(environment))


def load_providers(environment: Mapping[str, str] = os.environ) -> dict[str, Provider]:
    """Every provider by id: the package's, and those of the file that SEMROUTE_PROVIDERS names.

    A file is read once in a process. Raises ``ConfigError`` with every problem found in it.
    """
    return _catalogue(environment.get(SITE_FILE, ""))


class _Catalogue(_Entry):
    providers: dict[str, Provider] = Field(min_length=1)
    """Providers by id."""


@functools.cache
def _catalogue(site: str) -> dict[str, Provider]:
    shipped = _read(Path(__file__).with_name("providers.yaml"), {})
    if not site:
        return shipped
    path = Path(site).expanduser()
    if not path.is_file():
        raise ConfigError([Problem(site, 0, "", f"is no file, and {SITE_FILE} names it")])
    return shipped | _read(path, shipped)


def _read(path: Path, shipped: Mapping[str, Provider]) -> dict[str, Provider]:
    document = read_yaml(path)
    try:
        found = document.parse(_Catalogue).providers
    except ConfigError as error:
        raise ConfigError(map(_masked, error.problems)) from None
    if problems := [
        p for name, one in found.items() for p in _faults(document, name, one, shipped)
    ]:
        raise ConfigError(problems)
    return {name: provider.model_copy(update={"id": name}) for name, provider in found.items()}


def _masked(problem: Problem) -> Problem:
    """Without what is written, where that may be a key that stands in the wrong place."""
    if not any(part in problem.key for part in ("key_env", "headers", "body")):
        return problem
    return replace(problem, message=problem.message.partition(", not ")[0])


def _faults(
    document: Document, name: str, provider: Provider, shipped: Mapping[str, Provider]
) -> Iterator[Problem]:
    """What is wrong with one entry, beyond its form. What is written is not repeated where it may
    be a key."""

    def problem(key: str, message: str) -> Problem:
        place: Key = ("providers", name, key) if key else ("providers", name)
        return document.problem(place, message)

    if provider.id:
        yield problem("id", "is the key above; leave it out here")
    if name in shipped:
        what = f"is a provider of the package, {shipped[name].name}; its key goes to no other host"
        yield problem("", f"{what}, so give yours another name")
    for key, names in _variables(provider).items():
        for variable in names:
            if not (variable.isidentifier() and variable.isascii()):
                yield problem(
                    key, "must name environment variables, such as MY_API_KEY, and never hold a key"
                )
            elif owner := _owner(variable, shipped):
                what = f"{variable} is for {owner.name}, and goes to its host only"
                yield problem(key, f"{what}; name a variable of your own")
    for key, headers in (
        ("headers", provider.headers),
        ("secret_headers", provider.secret_headers),
    ):
        for header in headers:
            if not _is_header(header):
                yield problem(key, "holds a name that no header can have")
    if {h.lower() for h in provider.headers} & {"authorization", provider.key_header.lower()}:
        yield problem("headers", "holds the header of the key; keys come from the environment")
    for field in sorted(provider.body):
        if fault := fault_of_field(field, provider.protocol):
            yield problem("body", f"has {field}, which {fault}")
    if not _is_header(provider.key_header):
        yield problem("key_header", "is no name that a header can have, such as x-api-key")
    if provider.key_prefix and not provider.key_prefix.removesuffix(" ").isalpha():
        yield problem("key_prefix", 'is no single word, such as "Bearer "')
    if provider.url and (fault := fault_of_template(provider.url, provider)):
        yield problem("url", fault)


def _variables(provider: Provider) -> dict[str, tuple[str, ...]]:
    """The environment variables that an entry reads, by the key that names them."""
    return {
        "key_env": provider.key_env,
        "secret_headers": tuple(provider.secret_headers.values()),
        "url": provider.variables,
        "url_env": (provider.url_env,) if provider.url_env else (),
        "region": variables_of(provider.region),
    }


def _owner(variable: str, shipped: Mapping[str, Provider]) -> Provider | None:
    """The cloud provider of the package whose secret ``variable`` holds."""
    return next(
        (
            provider
            for provider in shipped.values()
            if not provider.local
            and variable in (*provider.key_env, *provider.secret_headers.values())
        ),
        None,
    )


def _is_header(name: str) -> bool:
    return bool(name) and name.isascii() and name.replace("-", "").replace("_", "").isalnum()


@functools.lru_cache(maxsize=1024)
def _quirks_of(provider: Provider, model: str) -> Quirks:
    found = [provider.quirks, *(q for p, q in provider.models.items() if fnmatchcase(model, p))]
    return Quirks(
        rename={name: field for quirks in found for name, field in quirks.rename.items()},
        refuse=frozenset().union(*(quirks.refuse for quirks in found)),
        region=next((q.region for q in reversed(found) if q.region is not None), None),
    )
