"""The cascade: the static encoder answers where nothing is lost by it, and nowhere else."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from semroute_classifier.artifacts import Artifact, HeldOut, load_or_build
from semroute_classifier.cascade import LOST, SLIP, WORTH, Gate, choose
from semroute_classifier.classifier import Classification, Classifier, Stage, Turn
from semroute_classifier.encoders import HashingEncoder
from semroute_classifier.index import Index
from semroute_classifier.judging import Judge
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet

INSIDE, OUTSIDE = 400, 200
SET = UtteranceSet((Utterance("one", "a"), Utterance("two", "b"), Utterance("three", NONE)))
LABELS = np.repeat([0, 1, 2], [INSIDE // 2, INSIDE // 2, OUTSIDE])
IN_SCOPE = LABELS < 2


def judge(
    wrong: np.ndarray,
    probability: np.ndarray,
    similarity: np.ndarray,
    labels: np.ndarray = LABELS,
    tiers: tuple[np.ndarray, np.ndarray] | None = None,
) -> Judge:
    """A judge that was ``wrong`` on these rows of ``LABELS``, so sure and so near; ``tiers`` are
    where it was right of them, and how sure.

    Outside it gives the rest of the probability to ``none``, inside to the other task.
    """
    rows = np.arange(len(labels))
    best = np.where(labels < 2, np.where(wrong, 1 - labels, labels), 0)
    odds = np.zeros((len(labels), 3))
    odds[rows, best] = probability
    odds[rows, np.where(labels < 2, 1 - best, 2)] = 1 - probability
    tier_right, tier_sure = tiers or (np.zeros(len(labels), bool), np.ones(len(labels), np.float32))
    held = HeldOut(
        labels, odds, similarity.astype(np.float32), tier_right, tier_sure.astype(np.float32)
    )
    encoder = HashingEncoder()
    vectors = encoder.encode([u.text for u in SET.utterances])
    return Judge(SET, encoder, Artifact(vectors, Index(vectors), None, held), 0.05)


def drawn(inside: tuple[float, float], outside: tuple[float, float], seed: int) -> np.ndarray:
    """A figure for every row, even between two bounds in scope and between two others outside."""
    chance = np.random.default_rng(seed)
    return np.where(
        IN_SCOPE, chance.uniform(*inside, len(LABELS)), chance.uniform(*outside, len(LABELS))
    )


NEVER = np.zeros(len(LABELS), bool)
SURE = drawn((0.6, 0.999), (0.1, 0.3), 1)
NEAR = drawn((0.6, 1.0), (0.0, 0.3), 2)
SOMETIMES = np.random.default_rng(3).random(len(LABELS)) < 0.3


@pytest.fixture(scope="module")
def full() -> Judge:
    """It is right on all that is in scope."""
    return judge(NEVER, SURE, NEAR)


# ---- the choice


def test_a_good_static_judge_answers_most(full: Judge) -> None:
    """One that is as right as the full one answers all but what is far from everything known."""
    gate = choose(judge(NEVER, SURE, NEAR), full)
    assert gate is not None
    assert 0.8 < gate.share <= 0.9
    assert (NEAR[IN_SCOPE] < gate.similarity).mean() == pytest.approx(0.1, abs=0.01)


def test_a_judge_that_errs_at_random_answers_nothing(full: Judge) -> None:
    """Where its mistakes are as sure as the rest, no bound keeps them out."""
    assert choose(judge(SOMETIMES, np.full(len(LABELS), 0.9), NEAR), full) is None


def test_a_judge_that_errs_where_it_is_unsure_answers_the_rest(full: Judge) -> None:
    """The gate keeps what it costs and what slips through within what was set, on its own rows."""
    wrong = SOMETIMES & (SURE < 0.8)
    static = judge(wrong, SURE, NEAR)
    gate = choose(static, full)
    assert gate is not None
    assert WORTH < gate.share < choose_share(full)
    passed = (static.held_out_confidence >= gate.confidence) & (gate.similarity <= NEAR)
    assert passed[IN_SCOPE].mean() == pytest.approx(gate.share, abs=0.005)
    assert (passed & wrong).sum() <= LOST * INSIDE
    assert passed[~IN_SCOPE].mean() <= SLIP


def choose_share(full: Judge) -> float:
    gate = choose(judge(NEVER, SURE, NEAR), full)
    assert gate is not None
    return gate.share


def test_mistakes_that_the_full_judge_makes_too_cost_nothing() -> None:
    """Where both are wrong on the same texts, nothing is lost by answering quickly."""
    both = judge(SOMETIMES, drawn((0.9, 0.999), (0.1, 0.3), 4), NEAR)
    assert choose(both, both) is not None


def test_what_is_out_of_scope_must_not_slip_through(full: Judge) -> None:
    """A judge to whom outsiders look like the rest answers nothing, however right it is inside."""
    sure, near = drawn((0.9, 0.99), (0.9, 0.99), 5), drawn((0.5, 1), (0.5, 1), 6)
    assert choose(judge(NEVER, sure, near), full) is None
    assert choose(judge(NEVER, sure, NEAR), full) is not None  # the similarity alone parts them


def test_what_it_mistakes_the_tier_of_is_left_to_the_full_judge(full: Judge) -> None:
    """Where it is wrong of tiers that it is unsure of, it answers the others; where it is as sure
    of those, nothing."""
    right, unsure = ~SOMETIMES & IN_SCOPE, np.where(SOMETIMES, 0.4, 0.95)
    never_wrong = judge(NEVER, SURE, NEAR, tiers=(IN_SCOPE, unsure))
    gate = choose(judge(NEVER, SURE, NEAR, tiers=(right, unsure)), never_wrong)
    assert gate is not None
    assert 0.4 < gate.tier <= 0.95
    assert gate.share == pytest.approx(0.7 * choose_share(full), abs=0.05)
    as_sure = judge(NEVER, SURE, NEAR, tiers=(right, np.full(len(LABELS), 0.95)))
    assert choose(as_sure, never_wrong) is None


def test_a_gate_that_opens_for_few_is_none(full: Judge) -> None:
    """Where all but one in twenty may be wrong, a second stage is not worth having."""
    few = np.random.default_rng(7).random(len(LABELS)) < 0.05
    sure = np.where(IN_SCOPE & ~few, 0.6, SURE)
    wrong = IN_SCOPE & ~few & SOMETIMES
    assert choose(judge(wrong, sure, NEAR), full) is None


def test_without_what_was_held_out_there_is_no_gate(full: Judge) -> None:
    """Nothing held out, or not the same by both, is nothing to choose by."""
    nothing = Judge(SET, full.encoder, replace(full.artifact, held_out=None), 0.05)
    other = judge(NEVER, SURE, NEAR, np.roll(LABELS, 1))
    assert choose(nothing, full) is None
    assert choose(full, nothing) is None
    assert choose(other, full) is None


# ---- what it lets pass

WORDS = {
    "code": "python script function loop compile parser class module refactor async",
    "biology": "gene variant protein genome exon reads tumour allele plasmid cell",
    NONE: "weather joke recipe football holiday taxi birthday guitar soup movie",
}


def learnable(each: int = 60) -> UtteranceSet:
    chance = random.Random(7)
    return UtteranceSet(
        tuple(
            Utterance(" ".join(chance.sample(words.split(), 4)), task)
            for task, words in WORDS.items()
            for _ in range(each)
        )
    )


@pytest.fixture(scope="module")
def cascading() -> Classifier:
    """A classifier whose static encoder has vectors of its own."""
    utterances, encoder, quick = learnable(), HashingEncoder(), HashingEncoder(256)
    static = (quick, load_or_build(utterances, quick, None))
    return Classifier(utterances, encoder, load_or_build(utterances, encoder, None), static)


SURE_QUERY = learnable().utterances[0].text
FAR = "zzyzx qwfp 8842"


def ask(classifier: Classifier, turn: str | Turn, **how: bool | int) -> Classification:
    return classifier.classify([turn], **how)[0]  # type: ignore[arg-type]


def test_a_gate_has_three_bounds(cascading: Classifier) -> None:
    """It opens at its bounds, below neither of them, and never for what was defaulted."""
    verdict = ask(cascading, SURE_QUERY)
    confidence, similarity = verdict.confidence, verdict.matches[0].similarity
    verdict = replace(verdict, tier=Tier.LOW, tier_confidence=0.7)
    assert Gate(confidence, similarity, 0.7, 1).opens(verdict)
    assert not Gate(confidence + 1e-9, similarity, 0.7, 1).opens(verdict)
    assert not Gate(confidence, similarity + 1e-9, 0.7, 1).opens(verdict)
    assert not Gate(confidence, similarity, 0.71, 1).opens(verdict)
    assert Gate(confidence, similarity, 0.71, 1).opens(replace(verdict, tier=None))
    assert not Gate(0, 0, 0, 1).opens(replace(verdict, task=None))


def test_a_sure_query_is_answered_by_the_static_encoder(cascading: Classifier) -> None:
    """Its verdict says so, and its matches are the nearest in the static encoder's vectors."""
    verdict = ask(cascading, SURE_QUERY, cascade=True)
    assert (verdict.stage, verdict.task) == (Stage.STATIC, "code")
    texts = [u.text for u in cascading.utterances.utterances]
    encoder = HashingEncoder(256)
    cosines = encoder.encode(texts) @ encoder.encode([SURE_QUERY])[0]
    expected = sorted(cosines, reverse=True)[:5]
    assert [m.similarity for m in verdict.matches] == pytest.approx(expected, abs=1e-5)
    for match in verdict.matches:
        assert match.similarity == pytest.approx(
            cosines[texts.index(match.utterance.text)], abs=1e-5
        )


@pytest.mark.parametrize("query", [FAR, "weather soup guitar joke", "python gene", ""])
def test_other_queries_are_answered_as_without_it(cascading: Classifier, query: str) -> None:
    """What is far, out of scope or between two tasks has the full encoder's verdict."""
    verdict = ask(cascading, query, cascade=True)
    assert verdict.stage is Stage.FULL
    assert verdict == ask(cascading, query)


def test_without_the_cascade_the_full_encoder_answers(cascading: Classifier) -> None:
    """Unless it is asked for, no verdict is the static encoder's."""
    texts = [u.text for u in cascading.utterances.utterances]
    assert {v.stage for v in cascading.classify(texts)} == {Stage.FULL}
    assert Stage.STATIC in {v.stage for v in cascading.classify(texts, cascade=True)}


def test_answers_keep_the_order_of_the_queries(cascading: Classifier) -> None:
    """Quick and slow answers stand where their queries stood, each as it is alone."""
    queries = [FAR, SURE_QUERY, "gene exon", "joke taxi", "script class async compile"]
    together = cascading.classify(queries, cascade=True)
    alone = [ask(cascading, query, cascade=True) for query in queries]
    assert [v.stage for v in together] == [v.stage for v in alone]
    assert [v.matches[0].utterance for v in together] == [v.matches[0].utterance for v in alone]
    assert [v.stage for v in together][:2] == [Stage.FULL, Stage.STATIC]


@pytest.mark.parametrize("evidence", [0, 1, 20])
def test_a_quick_answer_has_the_evidence_asked_for(cascading: Classifier, evidence: int) -> None:
    """So many matches as asked for, none where none are, and the same verdict."""
    verdict = ask(cascading, SURE_QUERY, evidence=evidence, cascade=True)
    assert verdict.stage is Stage.STATIC
    assert len(verdict.matches) == evidence
    assert replace(verdict, matches=()) == replace(
        ask(cascading, SURE_QUERY, cascade=True), matches=()
    )


def test_without_a_static_encoder_there_is_no_cascade() -> None:
    """A classifier of one encoder has no gate and no quick answer, and still answers."""
    classifier = Classifier.build(learnable(), HashingEncoder())
    assert classifier.gate is None
    assert classifier.quick(Turn(SURE_QUERY)) is None
    assert ask(classifier, SURE_QUERY, cascade=True).stage is Stage.FULL
