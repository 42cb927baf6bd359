"""The file of a new profile, with comments for whoever changes it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """A model server in the building: its provider, and the ids of its models, smallest first."""

    provider: str
    url: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudModel:
    """A model outside the building; ``price`` is in USD per million tokens, in and out."""

    provider: str
    id: str
    price: tuple[float, float] | None = None
    context: int | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a profile is made of; ``local`` or ``cloud`` is there. USD a month."""

    name: str
    local: LocalServer | None = None
    cloud: CloudModel | None = None
    stay: tuple[str, ...] = ()
    reason: str = ""
    monthly_limit: float | None = None
    rank: int | None = None


def text_of(answers: Answers) -> str:
    """The file."""
    local, cloud = answers.local, answers.cloud
    names = _names([*(local.ids if local else ()), *([cloud.id] if cloud else ())])
    locals_ = names[: len(local.ids)] if local else names
    parts = [_head(answers)]
    if local:
        where = f"{{provider: {_text(local.provider)}, url: {_text(local.url)}}}"
        parts.append(f"backends:\n  local: {where}\n")
    parts += [
        _models(names, local, cloud),
        _routes(locals_, answers),
        _behavior(names[-1] if local and cloud else ""),
    ]
    if answers.monthly_limit is not None:
        parts.append(f"cost: {{monthly_limit: {_number(answers.monthly_limit)}}}   # USD\n")
    parts.append(_governance(answers))
    return "\n".join(parts)


def _head(answers: Answers) -> str:
    local, cloud = answers.local, answers.cloud
    kinds = [local.provider if local else "", cloud.provider if cloud else ""]
    description = ", behind it ".join(filter(None, kinds))
    needs = f", required_cloud_apis: [{_text(cloud.provider)}]" if cloud and not local else ""
    hardware = f"hardware: {{rank: {25 if answers.rank is None else answers.rank}{needs}}}"
    return f"""\
# Who answers what, what may leave the building and what it may cost.
# After a change: semroute profile check {answers.name}
name: {_text(answers.name)}
description: {_text(description)}
version: "1.0"

# With a rank, a server that is given no --profile may choose this one by itself: it takes the
# lowest rank whose requirements are all met.
{"# " if answers.rank is None else ""}{hardware}
"""


def _models(names: Sequence[str], local: LocalServer | None, cloud: CloudModel | None) -> str:
    entries = [f"backend: local, id: {_text(id)}" for id in (local.ids if local else ())]
    if cloud:
        entry = f"provider: {_text(cloud.provider)}, id: {_text(cloud.id)}"
        if cloud.context:
            entry += f", context: {cloud.context}"
        if cloud.capabilities:
            entry += f", capabilities: {_list(cloud.capabilities)}"
        if cloud.price:
            sent, answered = map(_number, cloud.price)
            entry += f", price: {{input: {sent}, output: {answered}}}"
        entries.append(entry)
    lines = [f"  {_text(name)}: {{{entry}}}" for name, entry in zip(names, entries, strict=True)]
    return (
        "# The names are yours; id is what the server knows. A request that needs tools, images,\n"
        "# json_schema or reasoning goes only to models whose capabilities: [...] name it.\n"
        "models:\n" + "\n".join(lines) + "\n"
    )


def _routes(names: Sequence[str], answers: Answers) -> str:
    model = f"model: {_text(names[0])}"
    if len(names) > 1:
        model = f"tiers: {{low: {_list(names)}, high: {_list(names[::-1])}}}"
    lines = [
        "# A row for a task says who answers it, best first; a tier that is left out takes the",
        "# next higher. The default row is for every task without a row of its own.",
        "routes:",
        f"  default: {{{model}}}",
    ]
    for task in answers.stay:
        lines += [
            f"  {_text(task)}:",
            f"    {model}",
            "    allow_cloud: false",
            f"    local_only_reason: {_text(answers.reason)}",
        ]
    return "\n".join(lines) + "\n"


def _behavior(fallback: str) -> str:
    chain = ""
    if fallback:
        chain = (
            f"# Answers where the models of a row cannot.\nfallback_chain: {_list([fallback])}\n"
        )
    return chain + "behavior: {prefer_local: true, max_retries: 1, timeout_seconds: 60}\n"


def _governance(answers: Answers) -> str:
    if answers.cloud is None:
        return "governance: {allow_cloud: false}   # nothing leaves the building\n"
    alone = (
        "" if answers.local else "# Every task leaves the building: use it where the data may.\n"
    )
    return (
        alone + "# What callers mark as more than public never goes to a cloud model, unless its\n"
        "# backend is declared with a higher clearance.\n"
        "governance: {allow_cloud: true}\n"
    )


def _names(ids: Iterable[str]) -> list[str]:
    """A short name for each id, each another: the id's last part."""
    names: list[str] = []
    for id in ids:
        short = re.sub(r"[^a-z0-9._-]+", "-", id.rpartition("/")[2].lower()).strip("-") or "model"
        taken = sum(re.fullmatch(rf"{re.escape(short)}(-\d+)?", name) is not None for name in names)
        names.append(f"{short}-{taken + 1}" if taken else short)
    return names


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _text(text: str) -> str:
    """``text`` in YAML, in quotes where it needs them."""
    is_plain = re.fullmatch(r"[\w.-]+", text, re.ASCII) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _number(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
