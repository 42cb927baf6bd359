"""``encoder``: which encoders there are, built ahead, compared with the original, and timed."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semroute_classifier.encoders import EncoderError
from semroute_classifier.encoders.building import build_engine
from semroute_classifier.encoders.comparing import (
    MEDIUM,
    SENTENCES,
    SHORT,
    alikeness,
    is_alike,
    one_by_one,
)
from semroute_classifier.encoders.engine import (
    EngineError,
    engine_folder,
    kept_engines,
    load_engine,
    read_manifest,
)
from semroute_classifier.encoders.loading import locate
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    fingerprint_of,
)
from semroute_classifier.encoders.static import distil, load_static
from semroute_classifier.encoders.timing import time_each
from semroute_service.cli import output
from semroute_service.settings import default_home

if TYPE_CHECKING:
    import argparse

    from semroute_classifier.encoders import Encoder
    from semroute_classifier.encoders.engine import OnnxEncoder


def show(options: argparse.Namespace) -> int:
    """Print what can be named, then every other engine that is kept."""
    home = _home(options)
    rows = [_named(spec, home) for spec in ("auto", "bundled")]
    rows.append({"encoder": "hashing", "is": "built in, for tests", "engines": {}})
    named = {row.get("folder") for row in rows}
    rows += [_row(m["name"], f, m) for f, m in kept_engines(home) if str(f) not in named]
    if options.json:
        output.print_json({"home": str(home), "encoders": rows})
        return 0
    head = ["encoder", "engines (cosine to the original, least)", "size", "where"]
    output.print_table(head, [_cells(row) for row in rows])
    return 0


def build(options: argparse.Namespace) -> int:
    """Build the engines of a model, and its static encoder, where they are not kept; say where
    they lie."""
    _tell_steps()
    try:
        name, model = _model(options)
        folder = engine_folder(_home(options), fingerprint_of(model))
        built = options.again or not _is_kept(folder)
        if built:
            build_engine(SentenceTransformerEncoder(name, model), _home(options))
        engine = load_engine(name, fingerprint_of(model), _home(options))
        if engine and (built or load_static(engine) is None):
            distil(engine)
        row = {**_row(name, folder, read_manifest(folder)), "built": built}
    except (EncoderError, EngineError) as error:
        return output.fail(str(error))
    if options.json:
        output.print_json(row)
    else:
        print("built" if built else "kept since before; --again builds anew")
        output.print_table(["encoder", "engines", "size", "where"], [_cells(row)])
    return 0


def verify(options: argparse.Namespace) -> int:
    """Print how alike the engines and the original are; the status is 1 where they are not."""
    try:
        engines, model = _open(options)
        original = SentenceTransformerEncoder(*model)
    except (EncoderError, EngineError) as error:
        return output.fail(str(error))
    expected = one_by_one(original)
    results = []
    for engine in engines:
        figures = alikeness(engine.encode(SENTENCES), expected, engine)
        alike = is_alike(engine.precision, figures)
        results.append({"precision": engine.precision, "alike": alike, **figures})
    if options.json:
        output.print_json({"encoder": model[0], "engines": results})
    else:
        head = ["precision", "vector_mean", "vector_min", "blocks_mean", "blocks_min", "alike"]
        rows = [[_word(result[name]) for name in head] for result in results]
        output.print_table([name.replace("_", " ") for name in head], rows)
    return 0 if all(result["alike"] for result in results) else 1


def bench(options: argparse.Namespace) -> int:
    """Print how long a query takes."""
    try:
        engines, model = _open(options)
        encoders: dict[str, Encoder] = {engine.precision: engine for engine in engines}
        encoders["torch"] = SentenceTransformerEncoder(*model)
    except (EncoderError, EngineError) as error:
        return output.fail(str(error))
    results = [_timed(name, encoder, options.rounds) for name, encoder in encoders.items()]
    if options.json:
        output.print_json({"encoder": model[0], "results": results})
        return 0
    head = [
        "runs in",
        "short p50",
        "short p95",
        "medium p50",
        "medium p95",
        "texts/s short, medium",
    ]
    output.print_table(head, [_timing_cells(result) for result in results])
    print("\nmilliseconds of one query at a time, tokenised and encoded")
    return 0


def _home(options: argparse.Namespace) -> Path:
    return Path(options.home).expanduser() if options.home else default_home()


def _model(options: argparse.Namespace) -> tuple[str, Path]:
    """The name and folder of the model; raises ``EncoderError`` where it is none."""
    if options.spec == "hashing":
        raise EncoderError('the encoder "hashing" is no model; it has nothing to export')
    return locate(options.spec)


def _open(options: argparse.Namespace) -> tuple[list[OnnxEncoder], tuple[str, Path]]:
    """Every engine kept of a model, and the model's name and folder."""
    name, model = _model(options)
    home, source = _home(options), fingerprint_of(model)
    folder = engine_folder(home, source)
    if not (folder / "engine.json").exists():
        raise EngineError(f"no engine of {name} is kept; semroute encoder build {options.spec}")
    kept = read_manifest(folder)["engines"]
    engines = [load_engine(name, source, home, precision) for precision in kept]
    return [engine for engine in engines if engine], (name, model)


def _is_kept(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except EngineError:
        return False
    return True


def _tell_steps() -> None:
    """What the classifier logs goes to standard error as plain lines."""
    log = logging.getLogger("semroute_classifier")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)


def _named(spec: str, home: Path) -> dict[str, Any]:
    try:
        name, model = locate(spec)
    except EncoderError as error:
        return {"encoder": spec, "is": str(error), "engines": {}}
    folder = engine_folder(home, fingerprint_of(model))
    try:
        row = _row(spec, folder, read_manifest(folder))
    except EngineError:
        row = {"encoder": spec, "is": "not built yet", "engines": {}}
    return row if name == spec else {**row, "stands_for": name}


def _row(name: str, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, int] = manifest["files"]
    engines = {
        precision: {
            "bytes": sum(size for file, size in files.items() if file.startswith(precision)),
            **manifest["cosines"][precision],
        }
        for precision in manifest["engines"]
    }
    return {
        "encoder": name,
        "folder": str(folder),
        "dimension": manifest["dimension"],
        "window": manifest["window"],
        "engines": engines,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    engines = row["engines"]
    name = row["encoder"] + (f" ({row['stands_for']})" if "stands_for" in row else "")
    alike = ", ".join(f"{p} {figures['vector_min']:.4f}" for p, figures in engines.items())
    size = sum(figures["bytes"] for figures in engines.values())
    return [
        name,
        alike or row.get("is", ""),
        f"{size / 1e6:.0f} MB" if size else "-",
        row.get("folder", "-"),
    ]


def _timed(name: str, encoder: Encoder, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"runs_in": name}
    for length, texts in (("short", SHORT), ("medium", MEDIUM)):
        timing = time_each(encoder.encode, texts, rounds)
        result[length] = {
            "tokens": sum(len(encoder.spans(text)) + 2 for text in texts) / len(texts),
            **asdict(timing),
            "per_second": round(timing.per_second, 1),
        }
    return result


def _timing_cells(result: dict[str, Any]) -> list[str]:
    short, medium = result["short"], result["medium"]
    times = [f"{length[p]:.2f}" for length in (short, medium) for p in ("p50_ms", "p95_ms")]
    rate = f"{short['per_second']:.0f}, {medium['per_second']:.0f}"
    return [result["runs_in"], *times, rate]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.6f}" if isinstance(value, float) else str(value)
