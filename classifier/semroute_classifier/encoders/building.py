"""How engines are built: exported, quantised, and compared with the original."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from typing import TYPE_CHECKING, Any

from semroute_classifier.encoders.comparing import SENTENCES, alikeness, is_alike, one_by_one
from semroute_classifier.encoders.engine import (
    FORMAT,
    PROBE,
    EngineError,
    OnnxEncoder,
    engine_folder,
)
from semroute_classifier.encoders.quantising import quantise
from semroute_classifier.keeping import new_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from semroute_classifier.encoders.comparing import Figures
    from semroute_classifier.encoders.engine import Precision
    from semroute_classifier.encoders.sentence_transformer import SentenceTransformerEncoder

LARGE_BYTES = 1_000_000_000
"""Above it an exact copy beside the model's own weights is not worth its place on the disk: it
would serve only while utterances are embedded, and torch gives the same states."""
_log = logging.getLogger(__name__)


def build_engine(
    original: SentenceTransformerEncoder, home: Path, large_bytes: int = LARGE_BYTES
) -> Path:
    """Export, quantise and verify ``original``; returns the folder below ``home`` that keeps it.

    Of a model above ``large_bytes`` int8 alone is kept, where it is like the original. Logs each
    step. Raises ``EngineError`` where it cannot be exported, where no engine is like the
    original, or where none can be kept.
    """
    folder = engine_folder(home, original.fingerprint)
    try:
        with new_folder(folder) as new:
            _Build(original, new).run(large_bytes)
    except EngineError:
        raise
    except Exception as error:  # an export raises whatever its parts raise
        raise EngineError(f"{type(error).__name__}: {str(error)[:200]}") from error
    return folder


class _Build:
    """One build in an empty folder."""

    def __init__(self, original: SentenceTransformerEncoder, folder: Path) -> None:
        self._original = original
        self._folder = folder
        self._seconds: dict[str, float] = {}
        self._figures: dict[str, Figures] = {}

    def run(self, large_bytes: int) -> None:
        with self._step("original"):
            self._expected = one_by_one(self._original)
        self._write_shared()
        if not (self._export(plain=True) or self._export(plain=False)):
            raise EngineError(f"the engine is not like the original: {self._figures['float32']}")
        kept: list[Precision] = ["float32"]
        large = self._original.weight_bytes > large_bytes
        if self._quantise():
            kept = ["int8"] if large else ["float32", "int8"]
        self._finish(kept)

    def _export(self, *, plain: bool) -> bool:
        """Whether the export is like the original; with ``plain`` it may fail in any way."""
        folder = self._empty("float32")
        try:
            with self._step("export plain" if plain else "export"):
                self._original.export(folder / "model.onnx", plain=plain)
            figures = self._verify("float32")
        except Exception as error:
            if not plain:
                raise
            _log.info("%s needs its own attention: %s", self._original.name, str(error)[:200])
            return False
        return is_alike("float32", figures)

    def _quantise(self) -> bool:
        """Whether the model in int8 is like the original."""
        folder = self._empty("int8")
        with self._step("quantise"):
            quantise(self._folder / "float32" / "model.onnx", folder / "model.onnx")
        figures = self._verify("int8")
        alike = is_alike("int8", figures)
        if not alike:
            _log.info("%s in int8 is not like the original: %s", self._original.name, figures)
        return alike

    def _verify(self, precision: Precision) -> Figures:
        with self._step(f"verify {precision}"):
            engine = OnnxEncoder("trial", self._folder, precision)
            figures = alikeness(engine.encode(SENTENCES), self._expected, engine)
        self._figures[precision] = figures
        return figures

    def _write_shared(self) -> None:
        tokenizer = self._original.tokenizer_json()
        (self._folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        self._write_manifest({})

    def _finish(self, kept: list[Precision]) -> None:
        """Drop what is not kept, and write what is known."""
        for precision in ("float32", "int8"):
            if precision not in kept:
                shutil.rmtree(self._folder / precision)
        vector = self._expected[SENTENCES.index(PROBE), -self._original.dimension :]
        files = [p for p in self._folder.rglob("*") if p.is_file() and p.name != "engine.json"]
        self._write_manifest(
            {
                "engines": kept,
                "cosines": self._figures,
                "seconds": self._seconds,
                "files": {
                    str(p.relative_to(self._folder)): p.stat().st_size for p in sorted(files)
                },
                "probe": [round(float(value), 6) for value in vector],
            }
        )

    def _write_manifest(self, further: dict[str, Any]) -> None:
        manifest = {
            "format": FORMAT,
            "name": self._original.name,
            "source": self._original.fingerprint,
            "dimension": self._original.dimension,
            "width": self._original.width,
            "window": self._original.window,
            **further,
        }
        text = json.dumps(manifest, indent=2) + "\n"
        (self._folder / "engine.json").write_text(text, encoding="utf-8")

    def _empty(self, precision: Precision) -> Path:
        folder = self._folder / precision
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[what] = round(time.perf_counter() - start, 2)
        _log.info("engine of %s: %s, %.1f s", self._original.name, what, self._seconds[what])
