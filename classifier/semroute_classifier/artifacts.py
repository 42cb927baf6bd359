"""What is computed once and kept: the utterances' vectors.

An artifact lies under the fingerprints of what it was made from, so one made from anything else
is never found, and a new one appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from semroute_classifier.encoders import Encoder, Vectors
    from semroute_classifier.utterances import UtteranceSet

_FORMAT = 1
_CHUNK = 64


def load_or_build_vectors(
    utterances: UtteranceSet,
    encoder: Encoder,
    home: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """The vectors of ``utterances``, from ``home`` where they lie there, else embedded and kept.

    ``progress`` is called with (done, total) while texts are embedded. ``home`` None keeps
    nothing. Returns shape (utterances, dimension).
    """
    folder = home / "artifacts" / _fingerprint(utterances, encoder) if home else None
    if folder:
        kept = _load(folder, len(utterances.utterances), encoder.dimension)
        if kept is not None:
            return kept
    vectors = _embed(utterances, encoder, progress)
    if folder:
        _keep(folder, vectors, utterances, encoder)
    return vectors


def _fingerprint(utterances: UtteranceSet, encoder: Encoder) -> str:
    content = json.dumps([_FORMAT, encoder.fingerprint, utterances.revision])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _embed(
    utterances: UtteranceSet, encoder: Encoder, progress: Callable[[int, int], None] | None
) -> Vectors:
    texts = [u.text for u in utterances.utterances]
    vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    # Texts of like length share a pass, so that little is spent on padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        vectors[rows] = encoder.encode([texts[i] for i in rows])
        if progress:
            progress(start + len(rows), len(texts))
    return vectors


def _load(folder: Path, count: int, dimension: int) -> Vectors | None:
    try:
        vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return vectors if vectors.shape == (count, dimension) else None


def _keep(folder: Path, vectors: Vectors, utterances: UtteranceSet, encoder: Encoder) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        np.save(temporary / "vectors.npy", vectors)
        manifest = {
            "format": _FORMAT,
            "encoder": encoder.name,
            "encoder_fingerprint": encoder.fingerprint,
            "utterances_revision": utterances.revision,
            "count": len(utterances.utterances),
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        if folder.exists():  # a damaged artifact, or another process was quicker
            shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError:
        # Another process may have put the same content there; a full disk must not stop a start.
        shutil.rmtree(temporary, ignore_errors=True)
