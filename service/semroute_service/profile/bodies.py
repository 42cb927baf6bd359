"""Further fields of a request's body, which a provider or a model adds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN_FIELDS = {
    "model": "the model's id says it",
    "messages": "they are the caller's",
    "stream": "every answer is streamed",
    "stream_options": "usage is asked for where the provider wants that",
    "n": "there is one answer",
    "max_tokens": "give max_tokens in the row",
    "max_completion_tokens": "give max_tokens in the row",
}
"""Fields that every request sets by itself; a second word on them would be lost or cost money."""
_NO_PLACE_OR_KEY = re.compile(
    r"(api_key|access_key|access_key_id|private_key|secret\w*|credentials?|password|token|headers"
    r"|base|base_url|endpoint|custom_llm_provider)$"
)
"""What LiteLLM takes for a key, or for the host that gets it."""


def fault_of_field(field: str, protocol: str) -> str:
    """Why nobody may add this field to requests of this protocol; empty if anybody may."""
    if field in _OWN_FIELDS:
        return f"must not be set: {_OWN_FIELDS[field]}"
    if protocol == "litellm" and _NO_PLACE_OR_KEY.search(field):
        return "must not be set: keys, and whom they go to, come from the environment"
    return ""


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both. Where both have one, ``above`` counts; two mappings are joined again, so
    that one more word on routing does not take back the others."""
    both = {**below, **above}
    for field in below.keys() & above.keys():
        if isinstance(below[field], dict) and isinstance(above[field], dict):
            both[field] = joined(below[field], above[field])
    return both
