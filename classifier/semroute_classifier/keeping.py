"""Folders that are computed once and kept: each appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of ``folder`` when the block has ended well.

    Raises ``OSError`` where it cannot be written. Whoever is quicker among several processes wins;
    what they make is the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        yield new
        if folder.exists():  # it could not be read, or another process was quicker
            shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
