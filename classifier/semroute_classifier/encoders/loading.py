"""From what a profile writes to an encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from semroute_classifier.encoders.base import EncoderError
from semroute_classifier.encoders.engine import EngineError, build_engine, load_engine
from semroute_classifier.encoders.hashing import HashingEncoder
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    bundled_folder,
    fingerprint_of,
    hub_folder,
)

if TYPE_CHECKING:
    from semroute_classifier.encoders.base import Encoder

BGE_M3 = "BAAI/bge-m3"
_log = logging.getLogger(__name__)


def load_encoder(spec: str, home: Path | None = None) -> Encoder:
    """Load the encoder that ``spec`` names: auto, bundled, hashing, a folder or a hub id.

    With ``home`` a model runs as an engine that is kept there, built where there is none; without,
    or where none can be built, it runs in torch.

    Raises ``EncoderError`` where there is no such encoder or it cannot be loaded.
    """
    if spec == "hashing":
        return HashingEncoder()
    if spec == "auto":
        folder = hub_folder(BGE_M3, download=False)
        if folder:
            return _open(BGE_M3, folder, home)
        spec = "bundled"
    if spec == "bundled":
        return _open("bundled", bundled_folder(), home)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _open(spec, path, home)
    if spec.startswith((".", "/", "~")):
        raise EncoderError(
            f'the encoder "{spec}" is not a folder; give that of a sentence-transformers model'
        )
    found = hub_folder(spec, download=True)
    assert found is not None
    return _open(spec, found, home)


def _open(name: str, folder: Path, home: Path | None) -> Encoder:
    engine = load_engine(name, fingerprint_of(folder), home) if home else None
    if engine:
        return engine
    original = SentenceTransformerEncoder(name, folder)
    if home is None:
        return original
    try:
        return build_engine(original, home)
    except EngineError as error:
        _log.warning("%s runs in torch, because no engine can be built: %s", name, error)
        return original
