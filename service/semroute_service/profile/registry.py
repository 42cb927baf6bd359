"""Where servers are that started by themselves, such as SLURM jobs.

A job that serves a model writes ``NAME.env`` into the folder SEMROUTE_REGISTRY, with lines such as
``export SEMROUTE_CODER_URL=http://node-7:8000/v1``, and removes it when it ends. The files are
read as data and never run. Whoever may write there says where local backends are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE = re.compile(r"^export ([A-Za-z_][A-Za-z0-9_]*)=(\S+)$", re.MULTILINE)


def with_registered(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment``, and for variables that it leaves unset or empty what servers registered."""
    folder = environment.get("SEMROUTE_REGISTRY")
    return (_registered(Path(folder).expanduser()) if folder else {}) | {
        name: value for name, value in environment.items() if value
    }


def _registered(folder: Path) -> dict[str, str]:
    """What all files of ``folder`` say; a job may remove its own while they are read."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.env")):
        try:
            found.update(_LINE.findall(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue
    return found
