"""From what a profile writes to an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semroute_classifier.encoders.base import EncoderError
from semroute_classifier.encoders.hashing import HashingEncoder

if TYPE_CHECKING:
    from semroute_classifier.encoders.base import Encoder

BGE_M3 = "BAAI/bge-m3"


def load_encoder(spec: str) -> Encoder:
    """Load the encoder that ``spec`` names: auto, bundled, hashing, a folder or a hub id.

    Raises ``EncoderError`` where there is no such encoder or it cannot be loaded.
    """
    if spec == "hashing":
        return HashingEncoder()
    from semroute_classifier.encoders import sentence_transformer as st

    if spec == "auto":
        folder = st.hub_folder(BGE_M3, download=False)
        if folder:
            return st.SentenceTransformerEncoder(BGE_M3, folder)
        spec = "bundled"
    if spec == "bundled":
        return st.SentenceTransformerEncoder("bundled", st.bundled_folder())
    path = Path(spec).expanduser()
    if path.is_dir():
        return st.SentenceTransformerEncoder(spec, path)
    if spec.startswith((".", "/", "~")):
        raise EncoderError(
            f'the encoder "{spec}" is not a folder; give that of a sentence-transformers model'
        )
    found = st.hub_folder(spec, download=True)
    assert found is not None
    return st.SentenceTransformerEncoder(spec, found)
