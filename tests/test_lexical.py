"""Hashed words and letters: counted rightly, weighted rightly, and the same everywhere."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from math import log

import numpy as np
import pytest

from semroute_classifier import lexical

WORDS = 2**lexical.WORD_BITS
TEXTS = ("Fix it, fix", "Write a Snakemake rule", "写一个函数 🧬", "", "half \ud83d a pair")


def numbers_of(text: str) -> tuple[list[int], list[int]]:
    """How often its words and pairs occur, and how often its runs of letters, each ascending."""
    counted = lexical.counts([text])
    are_words = counted.features < WORDS
    return (
        sorted(map(int, counted.numbers[are_words])),
        sorted(map(int, counted.numbers[~are_words])),
    )


def features_of(text: str) -> set[int]:
    return set(map(int, lexical.counts([text]).features))


def runs(text: str) -> Counter[str]:
    """The runs of letters as a person would count them."""
    joined = f" {' '.join(text.lower().split())} "
    ends = range(lexical.SHORTEST, lexical.LONGEST + 1)
    found = [joined[i : i + n] for n in ends for i in range(len(joined) - n + 1)]
    return Counter(run for run in found if " " not in run[1:-1])


# ---- counting


def test_a_case_counted_by_hand() -> None:
    """Of "Fix it, fix": "fix" twice, "it" once, two pairs once; ten runs twice and ten once."""
    words, letters = numbers_of("Fix it, fix")
    assert words == [1, 1, 1, 2]
    assert letters == [1] * 10 + [2] * 10


@pytest.mark.parametrize("seed", range(10))
def test_runs_are_those_of_each_word(seed: int) -> None:
    """Any text has as many runs of letters, as often, as when every run is cut out one by one."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdé,.🧬", k=chance.randint(1, 9))) for _ in range(6)]
    text = chance.choice(["  ", "\n", "\t "]).join(words)
    assert numbers_of(text)[1] == sorted(runs(text).values())


def test_runs_do_not_join_words() -> None:
    """The runs of two words are those of each alone, in whatever order they stand."""
    letters = {f for f in features_of("rule align") if f >= WORDS}
    apart = {f for word in ("rule", "align") for f in features_of(word) if f >= WORDS}
    assert letters == apart == {f for f in features_of("align rule") if f >= WORDS}


def test_only_pairs_know_the_order_of_words() -> None:
    """Two words the other way round share the words and differ in the pair."""
    one, other = features_of("fix write"), features_of("write fix")
    assert len(one - other) == len(other - one) == 1
    assert max(*(one ^ other)) < WORDS
    assert features_of("fix") < one


def test_capitals_are_the_same_letters() -> None:
    """Capitals change nothing."""
    assert features_of("Fix IT") == features_of("fix it")


def test_features_lie_within_the_width() -> None:
    """Every feature is a column, words first, each text's ascending and once."""
    counted = lexical.counts(TEXTS)
    assert len(counted) == len(TEXTS)
    assert 0 <= counted.features.min() < WORDS <= counted.features.max() < lexical.WIDTH
    for start, end in zip(counted.starts, counted.starts[1:], strict=False):
        assert (np.diff(counted.features[start:end]) > 0).all()


# ---- weighting


def test_rarity_is_the_smoothed_inverse_frequency() -> None:
    """A word of all texts weighs 1; one of one text in three, and of none, as the formula says."""
    found = lexical.rarity(lexical.counts(["fix it", "fix that", "fix"]))
    (everywhere,) = (f for f in features_of("fix") if f < WORDS)
    (once,) = (f for f in features_of("it") if f < WORDS)
    (nowhere,) = (f for f in features_of("zebra") if f < WORDS)
    assert found.shape == (lexical.WIDTH,)
    assert found[everywhere] == pytest.approx(1)
    assert found[once] == pytest.approx(log(4 / 2) + 1)
    assert found[nowhere] == pytest.approx(log(4 / 1) + 1)


def test_weights_are_sublinear_and_of_unit_length() -> None:
    """A word that occurs twice weighs 1 + log 2 of one that occurs once; each block has length 1.

    "fix", "it" and two pairs: the length of (1 + log 2, 1, 1, 1) is what they are divided by.
    """
    even = np.ones(lexical.WIDTH, np.float32)
    row = lexical.counts(["Fix it, fix"]).weighted(even).toarray()[0]
    twice = 1 + log(2)
    length = (twice**2 + 3) ** 0.5
    assert sorted(row[row > 0][:4]) == pytest.approx([1 / length] * 3 + [twice / length])
    assert np.linalg.norm(row[:WORDS]) == pytest.approx(1)
    assert np.linalg.norm(row[WORDS:]) == pytest.approx(1)


def test_what_is_rare_weighs_more() -> None:
    """Within a text the word that few texts have weighs more than the one that all have."""
    counted = lexical.counts(["fix it", "fix that", "fix"])
    row = counted.weighted(lexical.rarity(counted)).toarray()[0]
    assert row[min(features_of("fix"))] < row[min(features_of("it"))]


@pytest.mark.parametrize("text", [*TEXTS, "...", "\x00", "a", " \n\t", "x" * 100_000])
def test_any_text_has_finite_weights(text: str) -> None:
    """Whatever is written has weights, alone as beside another text."""
    even = np.ones(lexical.WIDTH, np.float32)
    alone = lexical.counts([text]).weighted(even)
    beside = lexical.counts(["fix it", text]).weighted(even)
    assert np.isfinite(alone.data).all()
    assert (alone != beside[1]).nnz == 0


# ---- the same everywhere


def digest() -> str:
    """Of the features of ``TEXTS``."""
    return hashlib.sha256(lexical.counts(TEXTS).features.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("seed", ["0", "1234"])
def test_another_process_gives_the_same_features(seed: str) -> None:
    """Kept weights hold in any process, whatever Python's own hashing is seeded with."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_lexical as t; print(t.digest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == digest()


def test_the_hash_has_not_changed() -> None:
    """Weights kept by an earlier release still mean the same columns.

    Whoever changes the hash raises the format of the artifacts, and this digest with it.
    """
    assert digest() == "da13cdb46bb3d205"
