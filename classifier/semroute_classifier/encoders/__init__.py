"""Encoders: texts in, unit-length vectors out.

One protocol, and the only folder of this room where variants live. ``load_encoder`` takes what a
profile or a command line writes:

- ``auto``: BGE-M3 where its weights are on the machine, ``bundled`` otherwise
- ``bundled``: all-MiniLM-L6-v2, whose weights come with a package; works offline
- ``hashing``: deterministic, without weights, for tests
- any other text: a sentence-transformers model by hub id or local path
- a ``RemoteModel``: an embedding model on an OpenAI-compatible server
"""

from semroute_classifier.encoders.base import Encoder, EncoderError, States, Vectors, vectors_of
from semroute_classifier.encoders.hashing import HashingEncoder
from semroute_classifier.encoders.loading import EncoderSpec, load_encoder
from semroute_classifier.encoders.remote import (
    EncoderUnavailableError,
    RemoteEncoder,
    RemoteModel,
)

__all__ = [
    "Encoder",
    "EncoderError",
    "EncoderSpec",
    "EncoderUnavailableError",
    "HashingEncoder",
    "RemoteEncoder",
    "RemoteModel",
    "States",
    "Vectors",
    "load_encoder",
    "vectors_of",
]
