"""A static encoder: one vector for each token, averaged. Distilled from an engine.

Every token of the vocabulary passes through the engine alone; the main directions of what comes
out, weighted so that frequent tokens count less, are a table. A text then costs a look-up for each
token, some tens of microseconds. The way is model2vec's (Minish Lab, 2024); its package is not
needed for so little, and its extra for distilling holds transformers back.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from semroute_classifier.encoders.base import unit_rows
from semroute_classifier.keeping import new_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from semroute_classifier.encoders.base import States, Vectors
    from semroute_classifier.encoders.engine import OnnxEncoder

FORMAT = 1
DIMENSION = 256
MOST_TOKENS = 32_768
"""Tokens that have a vector. Vocabularies are ordered by frequency, so the rest are rare."""
_CHUNK = 8192
_log = logging.getLogger(__name__)


class StaticEncoder:
    """Averages the vectors of a text's tokens. Its states are its vectors."""

    def __init__(self, name: str, folder: Path) -> None:
        """Open the table in ``folder``; raises whatever a missing or damaged file raises."""
        from tokenizers import Tokenizer

        manifest = json.loads((folder / "static.json").read_text(encoding="utf-8"))
        table: Vectors = np.load(folder / "table.npy", mmap_mode="r", allow_pickle=False)
        if not np.isfinite(table[:: max(1, len(table) // 100)]).all() or not table[-1].any():
            raise ValueError(f"{folder} holds no whole table")
        self.name = name
        self.fingerprint = f"{manifest['source']}-static{FORMAT}"
        self.dimension = self.width = int(table.shape[1])
        self.window = int(manifest["window"])
        self._table = np.asarray(table)  # mapped still, without the toll of a memmap's indexing
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> States:
        if not texts:
            return np.empty((0, self.width), np.float32)
        return unit_rows(np.stack([self._sum(text) for text in texts]))

    def spans(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._tokenizer.encode(
            text, add_special_tokens=False
        ).offsets
        return offsets

    def _sum(self, text: str) -> NDArray[np.float32]:
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        known = ids[ids < len(self._table)][: self.window]
        return np.asarray(self._table[known].sum(axis=0), np.float32)


def load_static(engine: OnnxEncoder) -> StaticEncoder | None:
    """The table kept beside ``engine``, or None."""
    try:
        return StaticEncoder(f"{engine.name} (static)", _folder(engine))
    except Exception:  # a damaged file raises whatever the part that it breaks raises
        return None


def distil(engine: OnnxEncoder) -> StaticEncoder | None:
    """Make and keep a table of ``engine``; None where it cannot be kept.

    Seconds for a small engine, minutes for a large one.
    """
    start = time.perf_counter()
    rows = _rows(engine)
    try:
        with new_folder(_folder(engine)) as new:
            np.save(new / "table.npy", _table(engine, rows))
            tokenizer = (engine.folder / "tokenizer.json").read_text(encoding="utf-8")
            (new / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
            manifest = {"source": engine.fingerprint, "window": engine.window}
            (new / "static.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")
    except OSError as error:
        _log.warning("the static encoder of %s cannot be kept: %s", engine.name, error)
        return None
    _log.info("static encoder of %s: built in %.1f s", engine.name, time.perf_counter() - start)
    return load_static(engine)


def _folder(engine: OnnxEncoder) -> Path:
    return engine.folder.parents[1] / "static" / f"{engine.fingerprint}-static{FORMAT}"


def _rows(engine: OnnxEncoder) -> list[list[int]]:
    """Each token as a text of its own, between the special tokens that the engine puts there."""
    first, last = engine.special_ids
    return [[*first, token, *last] for token in engine.token_ids()[:MOST_TOKENS]]


def _table(engine: OnnxEncoder, rows: list[list[int]]) -> Vectors:
    vectors = []
    for start in range(0, len(rows), _CHUNK):
        vectors.append(engine.encode_ids(rows[start : start + _CHUNK])[:, -engine.dimension :])
        _log.info(
            "static encoder of %s: %d of %d tokens",
            engine.name,
            start + len(vectors[-1]),
            len(rows),
        )
    every = np.concatenate(vectors)
    every = every - every.mean(axis=0)
    _, directions = np.linalg.eigh(every.T @ every)
    along = every @ directions[:, ::-1][:, :DIMENSION]
    # Zipf: the n-th most frequent token occurs about 1 / n as often as the first.
    weight = np.log1p(np.arange(len(along), dtype=np.float32))
    return np.ascontiguousarray(along * weight[:, None], dtype=np.float32)
