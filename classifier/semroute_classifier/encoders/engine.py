"""A local model as ONNX engines: exported once, verified, kept, and light to load.

Each text has a pass of its own, so its states cannot depend on its company and nothing is spent on
padding. torch is needed to build an engine, never to run one. Two are kept beside each other:
``int8`` answers queries, ``float32`` is exact.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from semroute_classifier.encoders.base import States

Precision: TypeAlias = Literal["int8", "float32"]

FORMAT = 2
LEAST_ALIKE: dict[str, float] = {"float32": 0.9999, "int8": 0.97}
"""The least cosine of a vector to the original's that an engine of each precision may have."""
PROBE = "Why does this rule fail with MissingOutputException after twenty minutes on the cluster?"
"""What a kept engine is tried on before it is used."""
_SMALL_BYTES = 200_000_000
_log = logging.getLogger(__name__)


class EngineError(Exception):
    """No engine can be made of a model, or none that is kept can be used."""


class OnnxEncoder:
    """Runs a kept engine. Loads in a fraction of a second and imports no torch."""

    def __init__(
        self, name: str, folder: Path, precision: Precision = "int8", threads: int | None = None
    ) -> None:
        """Open an engine in ``folder``; raises whatever a missing or damaged file raises.

        A pass of a small int8 model is too short to be worth sharing, and a server has other work
        for the other cores: it has one of the ``threads``. Others have as many as there are cores.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        manifest = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        self.name = name
        self.folder = folder
        self.precision: Precision = precision
        self.dimension = int(manifest["dimension"])
        self.width = int(manifest["width"])
        self.window = int(manifest["window"])
        self.fingerprint = f"{manifest['source']}-onnx{FORMAT}-{precision}"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._room = self.window - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        path = folder / precision / "model.onnx"
        self.small = _bytes_of(path.parent) < _SMALL_BYTES
        small = self.small and precision == "int8"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = (1 if small else 0) if threads is None else threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=_providers(precision)
        )

    def encode(self, texts: Sequence[str]) -> States:
        return self.encode_ids([self._ids(text) for text in texts])

    def encode_ids(self, rows: Sequence[Sequence[int]]) -> States:
        """The states of texts that are given as token ids, special ones among them."""
        states = [self._pass(row) for row in rows]
        return np.concatenate(states) if states else np.empty((0, self.width), dtype=np.float32)

    def token_ids(self) -> range:
        """The ids of all tokens, for ``encode_ids``; ``tokenizer.json`` in ``folder`` has more."""
        return range(self._tokenizer.get_vocab_size())

    @property
    def special_ids(self) -> tuple[list[int], list[int]]:
        """The ids of the special tokens before a text, and of those behind it."""
        words = self._tokenizer.encode("a", add_special_tokens=False)
        bare, whole = list(words.ids), list(self._tokenizer.encode("a").ids)
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]

    def spans(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._tokenizer.encode(
            text, add_special_tokens=False
        ).offsets
        return offsets

    def _ids(self, text: str) -> list[int]:
        """As many tokens as the window holds, with the special ones."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        tokens.truncate(self._room)
        ids: list[int] = self._tokenizer.post_process(tokens).ids
        return ids

    def _pass(self, ids: Sequence[int]) -> States:
        states: States = self._session.run(None, {"input_ids": np.array([ids], dtype=np.int64)})[0]
        return states


def engine_folder(home: Path, source: str) -> Path:
    """Where the engines of the model whose fingerprint is ``source`` lie below ``home``."""
    return home / "encoders" / f"{source}-onnx{FORMAT}"


def load_engine(
    name: str, source: str, home: Path, precision: Precision = "int8"
) -> OnnxEncoder | None:
    """The engine kept for the model whose fingerprint is ``source``.

    Where int8 was not like the original, float32 takes its place. None where float32 is not kept,
    because the model is large. Raises ``EngineError`` where nothing is kept or it is damaged.
    """
    folder = engine_folder(home, source)
    manifest = read_manifest(folder)
    if precision == "int8" and precision not in manifest["engines"]:
        _log.warning("%s runs in float32, because in int8 it is not like the original", name)
        precision = "float32"
    if precision not in manifest["engines"]:
        return None
    try:
        encoder = OnnxEncoder(name, folder, precision)
        vector = encoder.encode([PROBE])[0, -encoder.dimension :]
    except Exception as error:  # a damaged file raises whatever the part that it breaks raises
        raise EngineError(f"{folder} cannot be used: {error}") from error
    # Not above the line, and so too where a file is whole but zeros after a power failure.
    if not float(vector @ np.array(manifest["probe"])) >= LEAST_ALIKE[precision]:
        raise EngineError(f"{folder} does not give what it gave when it was made")
    return encoder


def read_manifest(folder: Path) -> dict[str, Any]:
    """What ``engine.json`` in ``folder`` says, if every file is there and as long as it was.

    Raises ``EngineError`` otherwise. A file that is cut short must not be mapped into memory.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["files"]
        wrong = [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"{folder} holds no engine: {error}") from error
    if wrong:
        raise EngineError(f"{folder} is damaged: {', '.join(wrong)}")
    return manifest


def kept_engines(home: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every whole folder of engines below ``home`` with what it says of itself."""
    found = []
    for folder in sorted((home / "encoders").glob(f"*-onnx{FORMAT}")):
        with contextlib.suppress(EngineError):
            found.append((folder, read_manifest(folder)))
    return found


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _providers(precision: Precision) -> list[str]:
    """A GPU is first where there is one; it gains nothing by int8."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if precision == "float32" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    return providers
