"""The static encoder: distilled from an engine, kept beside it, and made again when damaged."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import make_tiny_model
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import load_encoder, vectors_of
from semroute_classifier.encoders import static as statics
from semroute_classifier.encoders.engine import OnnxEncoder
from semroute_classifier.encoders.static import DIMENSION, StaticEncoder, distil, load_static
from semroute_classifier.utterances import Utterance, UtteranceSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKENS = 6_000
"""Tokens that have a vector here; the words of the tests are among them."""
TEXTS = ["write a script", "what does this gene do", "🧬", "", "word " * 600, "[CLS] [SEP]"]


@pytest.fixture(scope="module", autouse=True)
def _few_tokens() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statics, "MOST_TOKENS", TOKENS)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tiny engine and its table, to be copied and not to be written."""
    model = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    home = tmp_path_factory.mktemp("home")
    engine = load_encoder(str(model), home)
    assert isinstance(engine, OnnxEncoder)
    assert distil(engine)
    return home


def opened(home: Path) -> OnnxEncoder:
    (folder,) = home.glob("encoders/*-onnx?")
    return OnnxEncoder("tiny", folder)


def kept(home: Path) -> StaticEncoder:
    encoder = load_static(opened(home))
    assert encoder is not None
    return encoder


def table_folder(home: Path) -> Path:
    (folder,) = home.glob("**/*-static*")
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


# ---- what it gives


def test_it_gives_unit_vectors(made: Path) -> None:
    """Any text has a vector of length 1, and no text no rows."""
    encoder = kept(made)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension)
    assert encoder.width == encoder.dimension <= DIMENSION


def test_a_vector_does_not_depend_on_company(made: Path) -> None:
    """Alone a text has the vector that it has among others, to the last digit."""
    encoder = kept(made)
    together = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.array_equal(encoder.encode([text])[0], vector)


def test_a_text_is_the_sum_of_its_tokens(made: Path) -> None:
    """The order of the words changes nothing, and a word that is repeated draws nearer to it."""
    encoder = kept(made)
    one, other, script, more = encoder.encode(
        ["write a script", "script a write", "script", "write a script script script"]
    )
    assert np.allclose(one, other, atol=1e-5)
    assert script @ more > script @ one


def test_a_token_passes_through_the_engine_alone(made: Path) -> None:
    """A word's vector is what the engine says of it between its special tokens, moved to the mean
    of all and turned along their main directions; so cosines around that mean are kept."""
    engine, encoder = opened(made), kept(made)
    before, behind = engine.special_ids
    assert (
        engine.encode(["gene"]).tolist()
        == engine.encode_ids([[*before, *ids_of(engine, "gene"), *behind]]).tolist()
    )
    assert (before, behind) == (ids_of(engine, "[CLS]"), ids_of(engine, "[SEP]"))
    every = vectors_of(
        engine.encode_ids([[*before, token, *behind] for token in range(TOKENS)]), engine
    )
    words = ["gene", "script", "write", "cell"]
    moved = vectors_of(engine.encode(words), engine) - every.mean(axis=0)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    vectors = encoder.encode(words)
    assert np.allclose(vectors @ vectors.T, moved @ moved.T, atol=1e-3)


def ids_of(engine: OnnxEncoder, word: str) -> list[int]:
    vocabulary = json.loads((engine.folder / "tokenizer.json").read_text())["model"]["vocab"]
    return [vocabulary[word]]


def test_tokens_are_weighted_by_their_rank(made: Path) -> None:
    """The first token of the vocabulary counts for nothing; all others have a vector."""
    table = np.load(table_folder(made) / "table.npy")
    assert len(table) == TOKENS
    assert not table[0].any()
    assert table[1:].any(axis=1).all()


def test_tokens_behind_the_table_are_passed_over(made: Path) -> None:
    """A rare token beside common ones changes nothing; alone it is a text of nothing known."""
    vocabulary = json.loads((opened(made).folder / "tokenizer.json").read_text())["model"]["vocab"]
    rare = next(word for word, i in vocabulary.items() if i >= TOKENS and word.isalpha())
    encoder = kept(made)
    with_it, without, alone, nothing = encoder.encode([f"gene {rare}", "gene", rare, ""])
    assert np.array_equal(with_it, without)
    assert np.array_equal(alone, nothing)


def test_only_the_window_is_read(made: Path) -> None:
    """What stands behind as many tokens as the engine reads changes nothing."""
    encoder = kept(made)
    assert encoder.window == opened(made).window
    full = "gene " * encoder.window
    assert np.array_equal(*encoder.encode([full, full + "script " * 50]))


def test_spans_are_where_tokens_stand(made: Path) -> None:
    """Each span cuts its word out of the text, and none is of a special token."""
    text = "write a script"
    spans = kept(made).spans(text)
    assert [text[start:end] for start, end in spans] == text.split()


# ---- kept beside its engine


def test_kept_and_opened_again_it_is_the_same(made: Path, home: Path) -> None:
    """What was distilled and what is read back give the same, under the engine's own name."""
    engine = opened(home)
    shutil.rmtree(table_folder(home))
    fresh = distil(engine)
    assert fresh is not None
    again = kept(made)
    assert np.array_equal(fresh.encode(TEXTS), again.encode(TEXTS))
    assert fresh.fingerprint == again.fingerprint != engine.fingerprint
    assert fresh.fingerprint.startswith(engine.fingerprint)
    assert fresh.name == "tiny (static)"


def test_where_nothing_is_kept_nothing_is_opened(home: Path) -> None:
    """Without a table there is none, and asking for it makes none."""
    shutil.rmtree(table_folder(home))
    assert load_static(opened(home)) is None
    assert list(home.glob("**/*-static*")) == []


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "halved": lambda content: content[: len(content) // 2],
    "zeros of the right size": lambda content: bytes(len(content)),
    "zeros behind a good beginning": lambda content: (
        content[: len(content) // 2] + bytes(len(content) // 2)
    ),
    "something else": lambda _: b"<html>not found</html>",
}
SET = UtteranceSet(
    tuple(
        Utterance(f"{words} {more}", task)
        for task, words in {"code": "write a script", "biology": "read this gene"}.items()
        for more in ("now", "again", "for me", "and wait", "in time", "today")
    )
)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["table.npy", "tokenizer.json", "static.json"])
def test_a_damaged_table_is_not_opened(home: Path, name: str, damage: str) -> None:
    """A file that is not whole is as none."""
    file = table_folder(home) / name
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert load_static(opened(home)) is None


@pytest.mark.parametrize("state", ["whole", "missing", "damaged"])
def test_a_classifier_makes_the_table_where_it_has_to(
    made: Path, home: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Over a small engine a classifier opens the table that is kept, or makes it again."""
    if state == "missing":
        shutil.rmtree(table_folder(home))
    if state == "damaged":
        (table_folder(home) / "table.npy").write_bytes(b"")
    with caplog.at_level(logging.INFO, "semroute_classifier"):
        Classifier.build(SET, opened(home), home)
    assert ("static encoder of tiny: built" in caplog.text) is (state != "whole")
    assert np.array_equal(kept(home).encode(TEXTS), kept(made).encode(TEXTS))
    assert len(list((home / "artifacts").iterdir())) == 2  # of the engine, and of the table


def test_a_table_that_cannot_be_kept_is_none(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the folder cannot be written there is a warning and no table, and no failed start."""
    place = table_folder(home).parent
    shutil.rmtree(place)
    place.write_text("mine")
    assert distil(opened(home)) is None
    assert place.read_text() == "mine"
    assert "cannot be kept" in caplog.text
