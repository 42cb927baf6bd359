"""Engines: a model exported once runs without torch and gives what the original gives."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import make_causal_model, make_masking_model, make_tiny_model
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.encoders.building import build_engine
from semroute_classifier.encoders.engine import (
    EngineError,
    OnnxEncoder,
    engine_folder,
    load_engine,
)
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    bundled_folder,
    fingerprint_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from semroute_classifier.encoders import Encoder
    from semroute_classifier.encoders.engine import Precision

TEXTS = (
    "write a Python script",
    "Why does rule align fail with exit code 137 only on the cluster, and only for large samples?",
    "写一个读取CSV文件的Python函数",
    "🧬 hi",
    "word " * 600,  # longer than the window
    "[CLS] is a token, and so is [SEP]",
    "",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def engine_of(spec: str | Path, home: Path, precision: Precision = "int8") -> OnnxEncoder:
    encoder = load_encoder(str(spec), home, precision)
    assert isinstance(encoder, OnnxEncoder)
    return encoder


def one_by_one(encoder: Encoder) -> np.ndarray:
    """The states of each text in a pass of its own; torch rounds otherwise in company."""
    return np.concatenate([encoder.encode([text]) for text in TEXTS])


def cosines(one: np.ndarray, other: np.ndarray, blocks: int = 1) -> np.ndarray:
    """Of rows, or of each row's ``blocks``."""
    one, other = (rows.reshape(len(rows) * blocks, -1) for rows in (one, other))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


@pytest.mark.parametrize("which", ["bundled", "tiny"])
def test_an_exact_engine_gives_what_the_original_gives(which: str, tiny: Path, home: Path) -> None:
    """Whatever is not in the sentences it was verified on has the same states too."""
    spec = str(tiny) if which == "tiny" else which
    engine, original = engine_of(spec, home, "float32"), load_encoder(spec)
    assert isinstance(original, SentenceTransformerEncoder)
    assert (engine.name, engine.dimension, engine.width, engine.window) == (
        original.name,
        original.dimension,
        original.width,
        original.window,
    )
    states, expected = engine.encode(TEXTS), one_by_one(original)
    assert states.shape == expected.shape
    assert states.dtype == np.float32
    assert cosines(states, expected, blocks=5).min() > 0.9999


@pytest.mark.parametrize("which", ["bundled", "tiny"])
def test_an_int8_engine_gives_nearly_what_the_original_gives(
    which: str, tiny: Path, home: Path
) -> None:
    """It is not exact, and as near as promised; its rows are of unit length."""
    spec = str(tiny) if which == "tiny" else which
    engine, original = engine_of(spec, home), load_encoder(spec)
    states, expected = engine.encode(TEXTS), one_by_one(original)
    alike = cosines(vectors_of(states, engine), vectors_of(expected, original))
    assert 0.97 < alike.min() < 1 - 1e-6
    assert alike.mean() > 0.985
    lengths = np.linalg.norm(states.reshape(len(TEXTS), 5, -1), axis=2)
    assert np.allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize("make", [make_masking_model, make_causal_model])
def test_a_model_that_needs_its_masks_keeps_them(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Attention is made plain only where that changes nothing, in long texts too."""
    model = make(tmp_path)
    engine, original = engine_of(model, tmp_path, "float32"), load_encoder(str(model))
    assert cosines(engine.encode(TEXTS), one_by_one(original), blocks=5).min() > 0.9999


def test_exporting_leaves_the_original_as_it_was(tiny: Path, tmp_path: Path) -> None:
    """The model in torch gives the same bits after an engine has been made of it."""
    original = SentenceTransformerEncoder("tiny", tiny)
    before = one_by_one(original)
    build_engine(original, tmp_path)
    assert np.array_equal(one_by_one(original), before)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_states_do_not_depend_on_company(precision: Precision, tiny: Path, home: Path) -> None:
    """A text has the same bits alone and beside others."""
    engine = engine_of(tiny, home, precision)
    assert np.array_equal(engine.encode(TEXTS), one_by_one(engine))


def test_the_number_of_threads_changes_nothing(home: Path) -> None:
    """A worker with one thread and one with two agree to the last figures."""
    folder = engine_of("bundled", home).folder
    one, two = (OnnxEncoder("bundled", folder, threads=n) for n in (1, 2))
    assert cosines(one.encode(TEXTS), two.encode(TEXTS)).min() > 0.99999


def test_no_text_gives_no_row(tiny: Path, home: Path) -> None:
    """The width stays where there is nothing to encode."""
    engine = engine_of(tiny, home)
    assert engine.encode([]).shape == (0, engine.width)


def test_precisions_have_fingerprints_of_their_own(tiny: Path, home: Path) -> None:
    """What was built with one precision is not taken for the other's."""
    prints = {engine_of(tiny, home, precision).fingerprint for precision in ("int8", "float32")}
    assert len(prints | {load_encoder(str(tiny)).fingerprint}) == 3


def test_token_ids_are_encoded_as_their_text_is(home: Path) -> None:
    """Raw ids, special ones among them, give the states of the text that they are."""
    engine = engine_of("bundled", home)
    hello, world, start, end = 7592, 2088, 101, 102
    assert {hello, world, start, end} <= set(engine.token_ids())
    rows = engine.encode_ids([[start, hello, world, end], [start, world, end]])
    assert np.array_equal(rows, engine.encode(["hello world", "world"]))


def test_every_token_id_can_be_encoded(tiny: Path, home: Path) -> None:
    """The first and the last id are rows of the model's table."""
    engine = engine_of(tiny, home)
    ids = engine.token_ids()
    states = engine.encode_ids([[101, ids[0], 102], [101, ids[-1], 102]])
    assert np.isfinite(states).all()


@pytest.mark.parametrize("with_home", [True, False])
def test_spans_cover_the_whole_text(with_home: bool, home: Path) -> None:
    """Each word of a text longer than the window has its place, and no special token has one."""
    encoder = load_encoder("bundled", home if with_home else None)
    text = "naïve 🧬 genomes " * 300
    encoder.encode([text])  # cuts the text for itself alone
    spans = encoder.spans(text)
    assert len(spans) > encoder.window
    assert text[slice(*spans[0])] == "naïve"
    assert spans[-1][1] == len(text.rstrip())
    assert all(start < end for start, end in spans)


def test_the_window_counts_special_tokens(home: Path) -> None:
    """Two tokens fewer than the window are read; what stands behind changes nothing."""
    engine = engine_of("bundled", home)
    full = "word " * (engine.window - 2)
    assert len(engine.spans(full)) == engine.window - 2
    assert np.array_equal(engine.encode([full]), engine.encode([full + "genome"]))
    shorter = "word " * (engine.window - 3)
    assert not np.array_equal(engine.encode([shorter]), engine.encode([shorter + "genome"]))


def test_what_does_not_survive_int8_runs_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that int8 makes another of is kept exact alone; each start says so, none builds."""
    model = make_tiny_model(tmp_path, spread=2.0)
    with caplog.at_level(logging.WARNING):
        engine = engine_of(model, tmp_path)
    assert "runs in float32" in caplog.text
    assert engine.precision == "float32"
    manifest = json.loads((engine.folder / "engine.json").read_text())
    assert manifest["engines"] == ["float32"]
    assert manifest["cosines"]["int8"]["vector_min"] < 0.97
    made = (engine.folder / "engine.json").stat().st_mtime_ns
    assert engine_of(model, tmp_path).precision == "float32"
    assert (engine.folder / "engine.json").stat().st_mtime_ns == made


def test_of_a_large_model_int8_alone_is_kept(tiny: Path, tmp_path: Path) -> None:
    """Its exact states come from torch, and asking for them builds nothing anew."""
    folder = build_engine(SentenceTransformerEncoder("tiny", tiny), tmp_path, large_bytes=1000)
    assert not (folder / "float32").exists()
    made = (folder / "engine.json").stat().st_mtime_ns
    assert isinstance(load_encoder(str(tiny), tmp_path, "float32"), SentenceTransformerEncoder)
    assert engine_of(tiny, tmp_path).precision == "int8"
    assert (folder / "engine.json").stat().st_mtime_ns == made


def test_figures_are_kept_beside_the_engines(tiny: Path, home: Path) -> None:
    """engine.json says how like the original each engine is, and how long each step took."""
    manifest = json.loads((engine_of(tiny, home).folder / "engine.json").read_text())
    assert manifest["cosines"]["float32"]["blocks_min"] >= 0.9999
    assert manifest["cosines"]["int8"]["vector_mean"] >= 0.99
    assert {"export plain", "quantise", "verify int8"} <= manifest["seconds"].keys()


def test_tables_of_embeddings_are_int8_too(home: Path) -> None:
    """The int8 engine is about a quarter of the exact one, though most of it is a table."""
    folder = engine_of("bundled", home).folder
    sizes = {
        precision: sum(p.stat().st_size for p in (folder / precision).iterdir())
        for precision in ("int8", "float32")
    }
    assert sizes["int8"] < 0.27 * sizes["float32"]


def test_a_kept_engine_needs_no_torch(tiny: Path, home: Path) -> None:
    """A process that finds the engine answers without importing torch."""
    load_encoder(str(tiny), home)
    code = (
        "import sys; from pathlib import Path; "
        "from semroute_classifier.encoders import load_encoder; "
        "encoder = load_encoder(sys.argv[1], Path(sys.argv[2])); "
        "print(encoder.encode(['hello']).shape[1] == encoder.width, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny), str(home)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "True False\n", done.stderr


FILES = ("int8/model.onnx", "int8/weights", "float32/model.onnx", "tokenizer.json", "engine.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeros"])
def test_a_damaged_engine_is_not_used(
    file: str, damage: str, tiny: Path, home: Path, tmp_path: Path
) -> None:
    """Whatever is wrong with a kept engine is found when it is loaded, and its folder named."""
    precision: Precision = "float32" if file.startswith("float32") else "int8"
    folder = engine_folder(tmp_path, fingerprint_of(tiny))
    shutil.copytree(engine_of(tiny, home, precision).folder, folder)
    path, size = folder / file, (folder / file).stat().st_size
    if damage == "missing":
        path.unlink()
    elif damage == "zeros":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, 0 if damage == "empty" else size // 2)
    with pytest.raises(EngineError, match=str(folder)):
        load_engine("tiny", fingerprint_of(tiny), tmp_path, precision)


def test_a_damaged_engine_is_built_again(tiny: Path, home: Path, tmp_path: Path) -> None:
    """The start that finds the damage has a good engine, and so has the next without building."""
    folder = engine_folder(tmp_path, fingerprint_of(tiny))
    shutil.copytree(engine_of(tiny, home).folder, folder)
    os.truncate(folder / "int8" / "weights", 1000)
    expected = engine_of(tiny, home).encode(TEXTS)
    assert np.array_equal(engine_of(tiny, tmp_path).encode(TEXTS), expected)
    kept = load_engine("tiny", fingerprint_of(tiny), tmp_path)
    assert kept is not None
    assert np.array_equal(kept.encode(TEXTS), expected)


def test_a_model_that_gives_no_numbers_has_no_engine(tmp_path: Path) -> None:
    """Whose weights overflow is refused, and nothing half made stays."""
    model = make_tiny_model(tmp_path, spread=1e38)
    original = SentenceTransformerEncoder("tiny", model)
    with pytest.raises(EngineError, match="not like the original"):
        build_engine(original, tmp_path / "home")
    assert list((tmp_path / "home" / "encoders").iterdir()) == []


def test_builders_at_once_all_have_an_engine(tiny: Path, tmp_path: Path) -> None:
    """Workers that start together on an empty home end with one whole folder."""
    code = (
        "import sys; from pathlib import Path; "
        "from semroute_classifier.encoders import load_encoder; "
        "print(type(load_encoder(sys.argv[1], Path(sys.argv[2]))).__name__)"
    )
    command = [sys.executable, "-c", code, str(tiny), str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [worker.communicate(timeout=200)[0] for worker in workers] == ["OnnxEncoder\n"] * 2
    (folder,) = (tmp_path / "encoders").iterdir()
    assert folder == engine_folder(tmp_path, fingerprint_of(tiny))


def test_another_model_has_another_engine(tiny: Path, tmp_path: Path) -> None:
    """A change of the weights is a change of the fingerprint, and the old engine is not used."""
    changed = tmp_path / "changed"
    shutil.copytree(tiny, changed)
    (weights,) = changed.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\0\0\0\0"
    weights.write_bytes(content)
    home = tmp_path / "home"
    one, other = load_encoder(str(tiny), home), load_encoder(str(changed), home)
    assert one.fingerprint != other.fingerprint
    assert len(list((home / "encoders").iterdir())) == 2


def test_without_a_place_for_the_engine_torch_serves(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A home that cannot be written costs speed and a warning, not the start."""
    (tmp_path / "file").write_text("mine")
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(str(tiny), tmp_path / "file")
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert "runs in torch" in caplog.text
    assert encoder.encode(["hello"]).shape == (1, encoder.width)


def test_the_bundled_model_fits_an_engine(home: Path) -> None:
    """The default encoder runs as an engine, not in torch."""
    load_encoder("bundled", home)
    engine = load_engine("bundled", fingerprint_of(bundled_folder()), home)
    assert engine is not None
    assert engine.precision == "int8"
