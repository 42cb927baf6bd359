"""``providers``: what the catalogue says, and which keys are set. Keys are never shown."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from semroute_classifier.documents import ConfigError, suggest
from semroute_service.cli import output
from semroute_service.profile import load_providers
from semroute_service.profile.addresses import address_of, region_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from semroute_service.profile import Provider
    from semroute_service.profile.providers import Quirks


def providers(options: argparse.Namespace) -> int:
    """All of them, or everything about one."""
    try:
        known = load_providers()
    except ConfigError as error:
        return output.fail(str(error))
    if options.name and options.name not in known:
        return output.fail(f'there is no provider "{options.name}"{suggest(options.name, known)}')
    if options.name:
        _show(known[options.name], as_json=options.json)
    elif options.json:
        output.print_json({"providers": [_as_dict(provider) for provider in known.values()]})
    else:
        head = ["id", "protocol", "is", "region", "prices", "set", "key"]
        output.print_table(head, [_cells(provider) for provider in known.values()])
    return 0


def _cells(provider: Provider) -> list[str]:
    """One row: whether the key is set stands before the variable that holds it."""
    region = region_of(provider, os.environ) or "-"
    is_set = ("yes" if provider.key() else "no") if provider.key_env else "-"
    key = " or ".join(provider.key_env) or "-"
    if provider.key_env and not provider.key_required:
        key += ", where it needs one"
    if lacks := _address(provider)[1]:
        key += f"; {lacks}"
    return [
        provider.id,
        provider.protocol,
        provider.locality,
        region,
        _prices(provider),
        is_set,
        key,
    ]


def _prices(provider: Provider) -> str:
    """Of how many models a price is known, and from which month the newest is."""
    newest = max((price.date for price in provider.prices.values()), default=None)
    return f"{len(provider.prices)} of {newest:%Y-%m}" if newest else "-"


def _show(provider: Provider, *, as_json: bool) -> None:
    if as_json:
        output.print_json(_as_dict(provider))
        return
    output.print_facts([(name, text) for name, text in _facts(provider) if text])
    if provider.prices:
        print()
        rows = [
            [model, f"{price.input:g}", f"{price.output:g}", str(price.date), price.source]
            for model, price in provider.prices.items()
        ]
        output.print_table(["USD per M tokens of", "input", "output", "date", "source"], rows)


def _as_dict(provider: Provider) -> dict[str, Any]:
    """The entry, and what the environment makes of it."""
    return {
        **provider.model_dump(mode="json"),
        "region": region_of(provider, os.environ),
        "key_set": bool(provider.key()),
        "lacks": _address(provider)[1],
    }


def _facts(provider: Provider) -> Iterator[tuple[str, str]]:
    yield "id", provider.id
    yield "name", provider.name
    yield "DEPRECATED", provider.deprecated
    yield "protocol", provider.protocol
    yield "is", provider.locality
    yield "region", region_of(provider, os.environ)
    url, lacks = _address(provider)
    yield "address", url or provider.url or "the profile says where"
    yield "", f"{provider.url_env} says another" if provider.url_env else ""
    yield "lacks", lacks
    yield "key", _key(provider)
    yield "", f"sent as {provider.key_header}: {provider.key_prefix}…" if provider.key_env else ""
    for header, variable in provider.secret_headers.items():
        yield "", f"{header}: {variable}, {_is_set(variable)}"
    for header, value in provider.headers.items():
        yield "header", f"{header}: {value}"
    yield "health", provider.health
    yield "metrics", " ".join(filter(None, (provider.metrics, provider.waiting_metric)))
    timeout = provider.timeout_seconds
    yield "timeout", f"{timeout:g} s to the first token, unless set" if timeout else ""
    yield "usage", "asked for" if provider.usage == "asked" else "comes unasked"
    yield "body", json.dumps(provider.body) if provider.body else ""
    yield "endings", _pairs(provider.finish_reasons)
    yield "can", ", ".join(sorted(provider.capabilities))
    for pattern, quirks in {"": provider.quirks, **provider.models}.items():
        yield from _quirks(pattern, quirks)
    yield "speed", _speed(provider)
    for note in provider.notes:
        yield "note", note
    yield "docs", provider.docs
    yield "verified", str(provider.verified or "")


def _quirks(pattern: str, quirks: Quirks) -> Iterator[tuple[str, str]]:
    models = f"{pattern}: " if pattern else ""
    if quirks.refuse:
        yield "refuses", models + ", ".join(sorted(quirks.refuse))
    if quirks.rename:
        yield "renames", models + _pairs(dict(quirks.rename))
    if quirks.region is not None:
        yield "region", f"{models}{quirks.region or 'anywhere'}"


def _key(provider: Provider) -> str:
    """Which variable holds the key, and whether it does."""
    if not provider.key_env:
        return "needs none" if provider.local else "not its own"
    names = [name for name in provider.key_env if os.environ.get(name)]
    if names:
        return f"{names[0]} is set"
    needed = "" if provider.key_required else ", and need not be"
    return f"{' or '.join(provider.key_env)} is not set{needed}"


def _is_set(variable: str) -> str:
    return "which is set" if os.environ.get(variable) else "which is not set"


def _address(provider: Provider) -> tuple[str, str]:
    """Where it stands, and what must be set before that is known."""
    try:
        return address_of(provider, os.environ)
    except ValueError as error:
        return "", str(error)


def _speed(provider: Provider) -> str:
    speed = provider.speed
    if speed is None:
        return ""
    rate = f", then {speed.tokens_per_second:g} tokens/s" if speed.tokens_per_second else ""
    return f"first token after {speed.first_token_seconds:g} s{rate}, as reported"


def _pairs(words: dict[Any, Any]) -> str:
    return ", ".join(f"{name} is {meaning}" for name, meaning in words.items())
