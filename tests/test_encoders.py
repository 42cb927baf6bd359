"""Encoders: what every one promises, what the bundled one gives, and how others are loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models import HIDDEN, make_tiny_model
from semroute_classifier.encoders import (
    Encoder,
    EncoderError,
    HashingEncoder,
    load_encoder,
    vectors_of,
)
from semroute_classifier.encoders.sentence_transformer import bundled_folder, fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = (
    "write a Python script",
    "what variants are in this VCF",
    "Could you explain, step by step and for a reader who has never seen one, what a p-value is, "
    "why so many people misread it, and what they should report in its place?",
    "写一个读取CSV文件的Python函数",
    "hi",
    "🧬",
)


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    """The bundled encoder, loaded once for the file; the network is off."""
    return load_encoder("bundled")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model that is built as BGE-M3 is."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def encoded(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    return vectors_of(encoder.encode(texts), encoder)


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(vectors, axis=1))


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((one * other).sum(axis=1) / (lengths(one) * lengths(other)))


# ---- the hashing encoder


def test_hashing_is_deterministic() -> None:
    """Two encoders of the same dimension give the same bits and the same fingerprint."""
    one, other = HashingEncoder(), HashingEncoder()
    assert np.array_equal(one.encode(TEXTS), other.encode(TEXTS))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != HashingEncoder(64).fingerprint


@pytest.mark.parametrize("dimension", [1, 64, 512])
def test_hashing_gives_unit_rows(dimension: int) -> None:
    """Every row has length 1 and the promised shape and type, whatever the dimension."""
    vectors = HashingEncoder(dimension).encode(TEXTS)
    assert vectors.shape == (len(TEXTS), dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(lengths(vectors), 1, atol=1e-6)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "?!", "\x00"])
def test_hashing_gives_texts_without_words_a_unit_row(text: str) -> None:
    """A text in which nothing can be counted still gets a vector of length 1."""
    vectors = HashingEncoder().encode([text])
    assert np.isfinite(vectors).all()
    assert lengths(vectors)[0] == pytest.approx(1)


def test_hashing_of_no_text_is_an_empty_array() -> None:
    """No text gives no row, and the width stays."""
    assert HashingEncoder(64).encode([]).shape == (0, 64)


def test_hashing_knows_spelling() -> None:
    """A text is nearer to one that shares its words than to one that shares none."""
    encoder = HashingEncoder()
    query, near, far = encoder.encode(
        ["write a python script", "write me a python function", "fry an egg in butter"]
    )
    assert query @ near > query @ far


# ---- the bundled encoder


def test_bundled_gives_unit_rows_offline(bundled: Encoder) -> None:
    """The bundled encoder loads without a network and gives unit rows of 384 values."""
    assert bundled.name == "bundled"
    assert bundled.dimension == 384
    states = bundled.encode(TEXTS)
    assert states.shape == (len(TEXTS), bundled.width)
    assert states.dtype == np.float32
    assert np.allclose(lengths(vectors_of(states, bundled)), 1, atol=1e-5)


def test_bundled_states_hold_unit_layers_beside_the_vector(bundled: Encoder) -> None:
    """Four layers stand before the vector, each of unit length."""
    states = bundled.encode(TEXTS)
    assert bundled.width == 5 * bundled.dimension
    for block in np.split(states, 5, axis=1):
        assert np.allclose(lengths(block), 1, atol=1e-5)


@pytest.mark.parametrize("text", ["", " ", "\x00\x07", "a" * 100_000, "word " * 5_000])
def test_bundled_takes_any_text(bundled: Encoder, text: str) -> None:
    """An empty, unprintable or endless text gets a vector like any other."""
    states = bundled.encode([text])
    assert np.isfinite(states).all()
    assert lengths(vectors_of(states, bundled))[0] == pytest.approx(1, abs=1e-5)


def test_bundled_equals_the_librarys_own_encode(bundled: Encoder) -> None:
    """A text's vector is what sentence-transformers itself makes of it."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bundled_folder()), local_files_only=True)
    own = model.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)
    assert cosines(encoded(bundled, TEXTS), own).min() > 0.9999


def test_states_do_not_depend_on_company(bundled: Encoder) -> None:
    """A text alone has the same states as in a pass with shorter and with longer ones."""
    together = bundled.encode(TEXTS)
    alone = np.vstack([bundled.encode([text]) for text in TEXTS])
    assert cosines(together, alone).min() > 0.9999


# ---- any other model


def test_a_model_is_loaded_by_path(tiny: Path) -> None:
    """A folder's path is an encoder spec, and the name that decisions carry."""
    encoder = load_encoder(str(tiny))
    assert encoder.name == str(tiny)
    assert encoder.dimension == HIDDEN
    states = encoder.encode(TEXTS)
    assert states.shape == (len(TEXTS), encoder.width)
    assert np.allclose(lengths(vectors_of(states, encoder)), 1, atol=1e-5)


def test_the_models_own_modules_pool(tiny: Path) -> None:
    """A model that says CLS gets the first token's state, not the mean of all tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    model: Any = AutoModel.from_pretrained(tiny).eval()
    with torch.inference_mode():
        last = model(**tokenizer([TEXTS[0]], return_tensors="pt")).last_hidden_state[0]
    vector = encoded(load_encoder(str(tiny)), [TEXTS[0]])
    assert cosines(vector, last[:1].numpy())[0] > 0.9999
    assert cosines(vector, last.mean(0, keepdim=True).numpy())[0] < 0.999


@pytest.mark.parametrize("there", [False, True])
def test_auto_takes_bge_m3_where_it_is_on_the_machine(
    tiny: Path, tmp_path: Path, there: bool
) -> None:
    """``auto`` is BGE-M3 where its snapshot holds weights, and ``bundled`` otherwise."""
    cache = tmp_path / "hub" / "models--BAAI--bge-m3"
    revision = "0" * 40
    if there:
        shutil.copytree(tiny, cache / "snapshots" / revision)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(revision)
    # The library reads where its cache lies when it is imported, hence a process of its own.
    code = "from semroute_classifier.encoders import load_encoder; print(load_encoder('auto').name)"
    environment = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("BAAI/bge-m3" if there else "bundled")


# ---- what cannot be loaded


@pytest.mark.parametrize("spec", ["nobody/no-such-model", "bundeld", "not a name/at all"])
def test_an_unknown_model_offline_says_what_to_do(spec: str) -> None:
    """What is no folder and cannot be fetched is an error that names it and a way out."""
    with pytest.raises(EncoderError) as caught:
        load_encoder(spec)
    assert f'"{spec}"' in str(caught.value)
    assert 'use "bundled"' in str(caught.value)


@pytest.mark.parametrize("spec", ["/no/such/folder", "./no-such-folder", "~/no-such-folder"])
def test_a_path_that_does_not_exist_is_not_sought_elsewhere(spec: str) -> None:
    """What is written as a path is taken as one, and its absence is told."""
    with pytest.raises(EncoderError, match="is not a folder; give that of"):
        load_encoder(spec)


def test_a_folder_without_a_model_says_what_it_must_hold(tmp_path: Path) -> None:
    """A folder that holds something else is an error that says what belongs there."""
    (tmp_path / "notes.txt").write_text("no model\n")
    with pytest.raises(EncoderError, match=r"must hold a sentence-transformers model") as caught:
        load_encoder(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_truncated_model_is_an_error(tiny: Path, tmp_path: Path) -> None:
    """A folder whose weights broke off while copying is an error, not a model."""
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(str(folder))


# ---- fingerprints


def test_fingerprints_tell_weights_and_settings_apart(tiny: Path, tmp_path: Path) -> None:
    """Another weight or another pooling gives another fingerprint; a copy or a note does not."""
    copy = shutil.copytree(tiny, tmp_path / "copy")
    (copy / "README.md").write_text("a note")
    assert fingerprint_of(copy) == fingerprint_of(tiny)

    for place in (-1, -2_000_000):
        trained = shutil.copytree(tiny, tmp_path / f"trained{place}")
        content = bytearray((trained / "model.safetensors").read_bytes())
        content[place] ^= 1
        (trained / "model.safetensors").write_bytes(content)
        assert fingerprint_of(trained) != fingerprint_of(tiny)

    pooled = shutil.copytree(tiny, tmp_path / "pooled")
    settings = pooled / "1_Pooling" / "config.json"
    settings.write_text(settings.read_text().replace('"cls"', '"max"'))
    assert fingerprint_of(pooled) != fingerprint_of(tiny)


@pytest.mark.parametrize("place", [0, 7_000_000, 19_900_000])
def test_a_layer_trained_anywhere_in_large_weights_is_seen(tmp_path: Path, place: int) -> None:
    """A stretch of changed weights shows though a large file is only sampled."""
    weights = tmp_path / "model.safetensors"
    content = bytearray(20_000_000)
    weights.write_bytes(content)
    before = fingerprint_of(tmp_path)
    content[place : place + 100_000] = b"\x01" * 100_000
    weights.write_bytes(content)
    assert fingerprint_of(tmp_path) != before


def test_a_loaded_encoder_carries_its_folders_fingerprint(tiny: Path, bundled: Encoder) -> None:
    """What decisions and artifacts are tied to is the digest of the model that is loaded."""
    assert load_encoder(str(tiny)).fingerprint == fingerprint_of(tiny)
    assert bundled.fingerprint == fingerprint_of(bundled_folder())
    assert bundled.fingerprint != fingerprint_of(tiny)
