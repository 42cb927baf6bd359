"""``profile reference``: every key of a profile, for people or for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from semroute_service.profile.reference import json_schema, markdown

if TYPE_CHECKING:
    import argparse


def reference(options: argparse.Namespace) -> int:
    """Print the reference page, or the JSON Schema."""
    if options.format == "json-schema":
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    else:
        print(markdown(), end="")
    return 0
