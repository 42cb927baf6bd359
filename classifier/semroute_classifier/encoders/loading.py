"""From what a profile writes to an encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from semroute_classifier.encoders.base import EncoderError
from semroute_classifier.encoders.building import build_engine
from semroute_classifier.encoders.engine import EngineError, load_engine
from semroute_classifier.encoders.hashing import HashingEncoder
from semroute_classifier.encoders.remote import RemoteEncoder, RemoteModel
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    bundled_folder,
    fingerprint_of,
    hub_folder,
)

if TYPE_CHECKING:
    from semroute_classifier.encoders.base import Encoder
    from semroute_classifier.encoders.engine import Precision

BGE_M3 = "BAAI/bge-m3"
EncoderSpec: TypeAlias = str | RemoteModel
"""What names an encoder: a word, a folder or a hub id; or a model on a server."""
_log = logging.getLogger(__name__)


def load_encoder(
    spec: EncoderSpec, home: Path | None = None, precision: Precision = "int8"
) -> Encoder:
    """Load the encoder that ``spec`` names: auto, bundled, hashing, a folder or a hub id.

    A ``RemoteModel`` is asked at its server; what follows is of local ones.

    With ``home`` a model runs as an engine of ``precision`` that is kept there, built where there
    is none; without, or where none can be built, it runs in torch. A large model has no engine of
    precision float32 and runs in torch if it is asked for.

    Raises ``EncoderError`` where there is no such encoder or it cannot be loaded.
    """
    if isinstance(spec, RemoteModel):
        return RemoteEncoder(spec.name, spec.url, spec.id, spec.key)
    if spec == "hashing":
        return HashingEncoder()
    name, folder = locate(spec)
    if home is None:
        return SentenceTransformerEncoder(name, folder)
    source = fingerprint_of(folder)
    try:
        engine = load_engine(name, source, home, precision)
        return engine or SentenceTransformerEncoder(name, folder)
    except EngineError as error:
        _log.info("building the engine of %s: %s", name, error)
    original = SentenceTransformerEncoder(name, folder)
    try:
        build_engine(original, home)
        return load_engine(name, source, home, precision) or original
    except EngineError as error:
        _log.warning("%s runs in torch, because no engine can be built: %s", name, error)
        return original


def locate(spec: str) -> tuple[str, Path]:
    """The name and the folder of the model that ``spec`` names; a hub id may be fetched.

    Raises ``EncoderError`` where there is no such model.
    """
    if spec == "auto":
        folder = hub_folder(BGE_M3, download=False)
        return (BGE_M3, folder) if folder else locate("bundled")
    if spec == "bundled":
        return spec, bundled_folder()
    path = Path(spec).expanduser()
    if path.is_dir():
        return spec, path
    if spec.startswith((".", "/", "~")):
        raise EncoderError(
            f'the encoder "{spec}" is not a folder; give that of a sentence-transformers model'
        )
    found = hub_folder(spec, download=True)
    assert found is not None
    return spec, found
