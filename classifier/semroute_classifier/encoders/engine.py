"""A local model as an ONNX engine: exported once, verified, kept, and light to load.

Each text has a pass of its own, so its states cannot depend on its company and nothing is spent on
padding. torch is needed to build an engine, never to run one.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.keeping import new_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from semroute_classifier.encoders.base import States
    from semroute_classifier.encoders.sentence_transformer import SentenceTransformerEncoder

_FORMAT = 1
_LARGEST_BYTES = 1_800_000_000
"""An ONNX file holds less than 2 GB; larger models are served by torch."""
_ALIKE = 0.9999
"""The least cosine to the original's states, on real sentences, that an engine may have."""
_log = logging.getLogger(__name__)


class EngineError(Exception):
    """No engine can be made of a model, or none can be kept."""


class OnnxEncoder:
    """Runs a kept engine. Loads in a fraction of a second and imports no torch."""

    def __init__(self, name: str, folder: Path) -> None:
        """Open the engine in ``folder``; raises whatever a missing or damaged file raises."""
        import onnxruntime
        from tokenizers import Tokenizer

        manifest = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        self.name = name
        self.dimension = int(manifest["dimension"])
        self.width = int(manifest["width"])
        self.fingerprint = f"{manifest['source']}-onnx{_FORMAT}"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(manifest["window"]))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str]) -> States:
        return np.concatenate([self._encode_one(text) for text in texts])

    def _encode_one(self, text: str) -> States:
        tokens = self._tokenizer.encode(text)
        inputs = {
            "input_ids": np.array([tokens.ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(tokens.ids)), dtype=np.int64),
        }
        states: States = self._session.run(None, inputs)[0]
        return states


def load_engine(name: str, source: str, home: Path) -> OnnxEncoder | None:
    """The engine kept for the model whose fingerprint is ``source``, or None."""
    try:
        return OnnxEncoder(name, _folder(home, source))
    except Exception:  # a damaged file raises whatever the part that it breaks raises
        return None


def build_engine(original: SentenceTransformerEncoder, home: Path) -> OnnxEncoder:
    """Export and verify an engine of ``original``, and keep it below ``home``.

    Raises ``EngineError`` where it cannot be exported, is not like the original, or not kept.
    """
    start = time.perf_counter()
    folder = _folder(home, original.fingerprint)
    try:
        with new_folder(folder) as new:
            _make(original, new)
        encoder = OnnxEncoder(original.name, folder)
    except EngineError:
        raise
    except Exception as error:  # an export raises whatever its parts raise
        raise EngineError(f"{type(error).__name__}: {str(error)[:200]}") from error
    _log.info("engine of %s built in %.1f s", original.name, time.perf_counter() - start)
    return encoder


def _folder(home: Path, source: str) -> Path:
    return home / "encoders" / f"{source}-onnx{_FORMAT}"


def _make(original: SentenceTransformerEncoder, folder: Path) -> None:
    """Export, and refuse what is not like the original."""
    if original.weight_bytes > _LARGEST_BYTES:
        raise EngineError("the model is larger than one ONNX file holds")
    (folder / "tokenizer.json").write_text(original.tokenizer_json(), encoding="utf-8")
    original.export(folder / "model.onnx")
    manifest = {
        "source": original.fingerprint,
        "dimension": original.dimension,
        "width": original.width,
        "window": original.window,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / "engine.json").write_text(text, encoding="utf-8")
    expected = np.concatenate([original.encode([text]) for text in _SENTENCES])
    cosine = _cosines(OnnxEncoder("trial", folder).encode(_SENTENCES), expected).min()
    if cosine < _ALIKE:
        raise EngineError(f"the engine is not like the original: cosine {cosine:.4f}")


def _cosines(states: States, expected: States) -> Any:
    """How alike rows of states are; both consist of blocks of unit length."""
    lengths = np.linalg.norm(states, axis=1) * np.linalg.norm(expected, axis=1)
    return (states * expected).sum(axis=1) / lengths


_SENTENCES = (
    "Write a function that merges two sorted lists.",
    "hi",
    "Why does this rule fail with MissingOutputException after twenty minutes on the cluster?",
    "Traceback (most recent call last):\n  File 'run.py', line 3, in main\nKeyError: 'sample'",
    "Which of these variants is likely to be pathogenic, given the family's history of arrhythmia?",
    "SELECT name, count(*) FROM visits GROUP BY name HAVING count(*) > 3;",
    "Könntest du mir bitte die Ergebnisse der letzten drei Läufe zusammenfassen?",
    "¿Qué prueba estadística conviene para dos grupos pequeños sin normalidad?",
    "Rédige une notice d'installation pour un débutant.",
    "帮我把这段代码改成异步的",
    "PLEASE CHECK THIS TEXT FOR NAMES AND PHONE NUMBERS BEFORE WE PUBLISH IT",
    "The committee postponed its vote until Tuesday, which nobody had expected, least of all the "
    "chair, who had already drafted the announcement and sent it to the printers.",
    '{"sample": "A17", "reads": 18234511, "q30": 0.93}',
    "What is the weather like in Lisbon tomorrow?",
    "Plan the migration: first the schema, then the back-fill, then the switch, with a way back.",
    "p = 0.049, n = 12: should I believe it?",
)
