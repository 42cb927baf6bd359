"""Engines: a model exported once runs without torch and gives what the original gives."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import make_tiny_model
from semroute_classifier.encoders import load_encoder
from semroute_classifier.encoders.engine import OnnxEncoder, load_engine
from semroute_classifier.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    bundled_folder,
    fingerprint_of,
)

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = (
    "write a Python script",
    "Why does rule align fail with exit code 137 only on the cluster, and only for large samples?",
    "写一个读取CSV文件的Python函数",
    "🧬 hi",
    "word " * 600,  # longer than the window
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("which", ["bundled", "tiny"])
def test_an_engine_gives_what_the_original_gives(which: str, tiny: Path, home: Path) -> None:
    """Whatever is not in the sentences it was verified on has the same states too."""
    spec = str(tiny) if which == "tiny" else which
    engine = load_encoder(spec, home)
    original = load_encoder(spec)
    assert isinstance(engine, OnnxEncoder)
    assert isinstance(original, SentenceTransformerEncoder)
    assert (engine.name, engine.dimension, engine.width) == (
        original.name,
        original.dimension,
        original.width,
    )
    expected = np.concatenate([original.encode([text]) for text in TEXTS])
    states = engine.encode(TEXTS)
    assert states.shape == expected.shape
    assert states.dtype == np.float32
    assert least_cosine(states, expected) > 0.9999


def test_states_do_not_depend_on_company(tiny: Path, home: Path) -> None:
    """A text has the same bits alone and beside others."""
    engine = load_encoder(str(tiny), home)
    together = engine.encode(TEXTS)
    alone = np.concatenate([engine.encode([text]) for text in TEXTS])
    assert np.array_equal(together, alone)


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


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "engine.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_engine_is_built_again(
    file: str, damage: str, tiny: Path, tmp_path: Path
) -> None:
    """Whatever is wrong with a kept engine, the next start has a good one."""
    first = load_encoder(str(tiny), tmp_path)
    (path,) = tmp_path.glob(f"encoders/*/{file}")
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    assert load_engine(first.name, fingerprint_of(tiny), tmp_path) is None
    second = load_encoder(str(tiny), tmp_path)
    assert isinstance(second, OnnxEncoder)
    assert np.array_equal(first.encode(TEXTS), second.encode(TEXTS))


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
    assert load_engine("bundled", fingerprint_of(bundled_folder()), home) is not None
