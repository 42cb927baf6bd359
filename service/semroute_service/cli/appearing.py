"""Files that others see whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[TextIO]:
    """A file to write that takes the place of ``path`` once it is on disk, and only then."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        # Half a surrogate pair, which UTF-8 cannot hold, becomes its JSON escape.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
