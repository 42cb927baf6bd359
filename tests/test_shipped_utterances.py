"""The utterances that ship: enough, honest, free of repetition, and good enough to route by."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from semroute_classifier.artifacts import load_or_build
from semroute_classifier.classifier import Classifier, Turn
from semroute_classifier.encoders import load_encoder
from semroute_classifier.evaluation import Example, evaluate, load_examples
from semroute_classifier.utterances import NONE, Tier, UtteranceSet, load_utterances

if TYPE_CHECKING:
    from semroute_classifier.encoders import Vectors

# Embedding the whole set takes a minute, and several on a machine that is busy.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[1]
VALIDATION = Path(__file__).parent / "data" / "validation.jsonl"
CONVERSATIONS = VALIDATION.with_name("conversations.jsonl")
TASKS = {
    "intent_parsing", "code_generation", "code_validation", "data_analysis", "math_statistics",
    "biomedical", "documentation", "embeddings", "safety", "orchestration",
}  # fmt: skip
NAMED = {
    "write a Python script": "code_generation",
    "implement an algorithm": "code_generation",
    "I need to create a snakemake workflow": "code_generation",
    "analyze this FASTQ file": "biomedical",
    "what does this gene do": "biomedical",
    "run differential expression": "biomedical",
    "variant calling pipeline": "biomedical",
    "what variants are in this VCF": "biomedical",
}
"""Requests whose task the product promises."""
PER_TIER = 30
OUT_OF_SCOPE = 120
RUN = 6
"""So many words in a row belong to one utterance only."""
TOO_NEAR = 0.95
"""The cosine from which two utterances say the same."""
ACCURACY_FLOOR = 0.82
TIER_ACCURACY_FLOOR = 0.6


@dataclass(frozen=True, slots=True)
class Built:
    """What the bundled encoder makes of the shipped utterances."""

    classifier: Classifier
    vectors: Vectors


@pytest.fixture(scope="module")
def shipped() -> UtteranceSet:
    return load_utterances(ROOT / "utterances")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return load_examples(VALIDATION)


@pytest.fixture(scope="module")
def built(shipped: UtteranceSet, kept: Path) -> Built:
    """Embedded once for the file, which takes most of its time."""
    encoder = load_encoder("bundled", kept)
    artifact = load_or_build(shipped, encoder, kept)
    return Built(Classifier(shipped, encoder, artifact), artifact.vectors)


@pytest.fixture(scope="module")
def figures(built: Built, examples: list[Example]) -> dict[str, Any]:
    return evaluate(built.classifier, examples)


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w'’]+", text.lower()))


# ---- enough


def test_the_ten_tasks_are_there(shipped: UtteranceSet) -> None:
    """The set teaches the design's ten tasks and no other, each with a description."""
    assert set(shipped.tasks) == TASKS
    assert all(shipped.descriptions[task].endswith(".") for task in TASKS)


def test_every_tier_of_every_task_has_enough(shipped: UtteranceSet) -> None:
    """Each task has all three tiers, and each tier enough examples to learn from."""
    counts = Counter((u.task, u.tier) for u in shipped.utterances)
    thin = {
        (task, tier.word): counts[task, tier]
        for task in TASKS
        for tier in Tier
        if counts[task, tier] < PER_TIER
    }
    assert thin == {}
    assert all(counts[task, None] == 0 for task in TASKS)


def test_there_is_enough_out_of_scope(shipped: UtteranceSet) -> None:
    """The out-of-scope examples are many, and have no tier."""
    none = [u for u in shipped.utterances if u.task == NONE]
    assert len(none) >= OUT_OF_SCOPE
    assert all(u.tier is None for u in none)


def test_the_loader_warns_of_nothing(shipped: UtteranceSet) -> None:
    """No shipped task is thin and no utterance stands in two tasks."""
    assert shipped.warnings == ()


# ---- honest


def test_length_is_not_the_tier(shipped: UtteranceSet) -> None:
    """The median request of each tier is about equally long, so that length teaches nothing."""
    medians = {
        tier.word: median(len(u.text.split()) for u in shipped.utterances if u.tier is tier)
        for tier in Tier
    }
    assert max(medians.values()) - min(medians.values()) <= 4, medians


def test_the_named_requests_are_there(shipped: UtteranceSet) -> None:
    """Every request that the product names stands verbatim in the file of its task."""
    tasks = {u.text: u.task for u in shipped.utterances}
    assert {text: tasks.get(text) for text in NAMED} == NAMED


def test_the_validation_set_is_held_out(shipped: UtteranceSet, examples: list[Example]) -> None:
    """No query that the set is measured by is one that it was taught."""
    taught = {words(u.text) for u in shipped.utterances}
    assert [e.query for e in examples if words(e.query) in taught] == []


def test_the_validation_set_covers_everything(examples: list[Example]) -> None:
    """Every task, every tier and out of scope are measured, with labels that exist."""
    assert {e.task for e in examples} == TASKS | {NONE}
    assert {(e.task, e.tier) for e in examples if e.in_scope} == {
        (task, tier) for task in TASKS for tier in Tier
    }
    assert {a for e in examples for a in e.acceptable} <= TASKS | {NONE}


# ---- free of repetition


def test_no_two_utterances_share_six_words_in_a_row(shipped: UtteranceSet) -> None:
    """No template was filled in twice."""
    first: dict[tuple[str, ...], int] = {}
    shared = {}
    for row, utterance in enumerate(shipped.utterances):
        spoken = words(utterance.text)
        for start in range(len(spoken) - RUN + 1):
            run = spoken[start : start + RUN]
            other = first.setdefault(run, row)
            if other != row:
                shared[other, row] = " ".join(run)
    assert [
        (run, shipped.utterances[one].task, shipped.utterances[other].task)
        for (one, other), run in shared.items()
    ] == []


def test_no_two_utterances_say_the_same(shipped: UtteranceSet, built: Built) -> None:
    """No utterance is a paraphrase of another, by the bundled encoder's measure."""
    similarities = np.triu(built.vectors @ built.vectors.T, k=1)
    near = [
        (
            round(float(similarities[i, j]), 3),
            shipped.utterances[i].text,
            shipped.utterances[j].text,
        )
        for i, j in np.argwhere(similarities >= TOO_NEAR)
    ]
    assert near == []


# ---- good enough


def test_the_named_requests_are_routed_so(built: Built) -> None:
    """The bundled encoder gives each request that the product names the task it promises."""
    texts = list(NAMED)
    verdicts = built.classifier.judge(texts, built.classifier.embed(texts))
    assert {t: v.task for t, v in zip(texts, verdicts, strict=True)} == NAMED


def test_the_bundled_encoder_routes_well_enough(figures: dict[str, Any]) -> None:
    """On queries that were never taught, task and tier do not fall below their floors.

    The floors are against regressions; what is printed is how good it is.
    """
    print({name: value for name, value in figures.items() if name != "confusion"})
    assert figures["accuracy"] >= ACCURACY_FLOOR
    assert figures["tier_accuracy"] >= TIER_ACCURACY_FLOOR


def test_conversations_are_routed_in_context(built: Built) -> None:
    """Follow-ups take the turn before into account; new topics and farewells do not."""
    right: Counter[str] = Counter()
    for line in CONVERSATIONS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        users = [m["content"] for m in row["messages"] if m["role"] == "user"]
        turn = Turn(users[-1], users[-2] if len(users) > 1 else "")
        said = built.classifier.classify([turn])[0].task or NONE
        right[row["kind"]] += said == row["task"]
    print(right)
    assert right["follow_up"] >= 24  # of 30; 12 when read alone
    assert right["new_topic"] >= 15  # of 18
    assert right["closing"] + right["off_topic"] >= 8  # of 12


def test_the_figures_are_in_order(figures: dict[str, Any], examples: list[Example]) -> None:
    """Every figure could be computed, over every example, and none contradicts another."""
    assert figures["n"] == len(examples)
    assert None not in figures.values()
    assert figures["accuracy"] <= figures["lenient_accuracy"] <= 1
    counted = sum(sum(row.values()) for row in figures["confusion"].values())
    assert counted == len(examples)
