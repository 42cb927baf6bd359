"""The verdict: matched or defaulted, by vote or by head, with its evidence."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from semroute_classifier.classifier import Basis, Classification, Classifier
from semroute_classifier.encoders import HashingEncoder
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet

SMALL = UtteranceSet(
    (
        Utterance("write a python script", "code", Tier.LOW),
        Utterance("design a distributed scheduler in python", "code", Tier.HIGH),
        Utterance("what does this gene do", "biology"),
        Utterance("which variants are in this genome", "biology"),
        Utterance("what is the weather tomorrow", NONE),
        Utterance("tell me a joke about cats", NONE),
    )
)
"""Too few to learn from: the neighbours vote."""

_WORDS = {
    "code": "python script function loop compile parser class module refactor async",
    "biology": "gene variant protein genome exon reads tumour allele plasmid cell",
    NONE: "weather joke recipe football holiday taxi birthday guitar soup movie",
}
_VERBS = {Tier.LOW: "show", Tier.MEDIUM: "explain", Tier.HIGH: "redesign"}


def learnable(tasks: tuple[str, ...] = ("code", "biology", NONE), each: int = 40) -> UtteranceSet:
    """Enough utterances of made-up words that a head is trained; biology has no tiers."""
    chance = random.Random(7)
    utterances = []
    for task in tasks:
        for i in range(each):
            tier = Tier(i % 3 + 1) if task == "code" else None
            words = chance.sample(_WORDS[task].split(), 4)
            verb = _VERBS[tier] if tier else chance.choice(("please", "kindly", "now"))
            utterances.append(Utterance(" ".join([verb, *words]), task, tier))
    return UtteranceSet(tuple(utterances))


@pytest.fixture(scope="module")
def voting() -> Classifier:
    return Classifier.build(SMALL, HashingEncoder())


@pytest.fixture(scope="module")
def trained() -> Classifier:
    return Classifier.build(learnable(), HashingEncoder())


def judge(classifier: Classifier, text: str, evidence: int = 5) -> Classification:
    return classifier.judge([text], classifier.embed([text]), evidence)[0]


def task_set(texts: list[str], tier: Tier | None = None) -> UtteranceSet:
    return UtteranceSet(tuple(Utterance(text, "only", tier) for text in texts))


# ---- the smallest sets


def test_one_task_with_three_utterances_serves() -> None:
    """The smallest set that a team may write gives verdicts."""
    classifier = Classifier.build(
        task_set(["sort these samples", "order the samples by date", "rank all samples"]),
        HashingEncoder(),
    )
    verdict = judge(classifier, "sort the samples by date")
    assert (verdict.task, verdict.basis) == ("only", Basis.MATCHED)
    assert verdict.confidence == pytest.approx(1, abs=1e-5)
    assert verdict.runner_up is None
    assert verdict.margin == pytest.approx(1, abs=1e-5)
    assert len(verdict.matches) == 3


def test_one_utterance_serves() -> None:
    """Even a single utterance is matched by itself, and not by what is far."""
    classifier = Classifier.build(task_set(["sort these samples"]), HashingEncoder())
    assert judge(classifier, "sort these samples").task == "only"
    assert judge(classifier, "fry onions").basis is Basis.DEFAULTED


def test_a_set_without_tiers_anywhere_gives_none() -> None:
    """Where no utterance has a tier, no verdict has."""
    classifier = Classifier.build(task_set(["sort these samples"]), HashingEncoder())
    verdict = judge(classifier, "sort these samples")
    assert (verdict.tier, verdict.best_tier) == (None, None)


# ---- by vote


def test_the_neighbours_vote(voting: Classifier) -> None:
    """With few utterances the nearest ones name task and tier."""
    low = judge(voting, "write a short python script")
    high = judge(voting, "design a scheduler in python")
    assert (low.task, low.tier) == ("code", Tier.LOW)
    assert (high.task, high.tier) == ("code", Tier.HIGH)


def test_an_utterance_itself_is_sure(voting: Classifier) -> None:
    """Every in-scope utterance of the set gets its own task and tier."""
    for utterance in SMALL.utterances:
        verdict = judge(voting, utterance.text)
        assert verdict.matches[0].utterance == utterance
        assert verdict.matches[0].similarity == pytest.approx(1, abs=1e-5)
        if utterance.task != NONE:
            assert (verdict.task, verdict.tier) == (utterance.task, utterance.tier)


def test_only_the_tasks_own_neighbours_vote_on_its_tier() -> None:
    """Another task's hard utterances nearby do not make a query of this task hard."""
    text = "please write a careful python script for the lab meeting on monday afternoon"
    same = UtteranceSet(
        (
            Utterance(text, "code", Tier.LOW),
            Utterance(f"{text} one", "code", Tier.HIGH),
            Utterance(f"{text} two", "prose", Tier.HIGH),
            Utterance(f"{text} six", "prose", Tier.HIGH),
        )
    )
    verdict = judge(Classifier.build(same, HashingEncoder()), text)
    assert (verdict.task, verdict.tier) == ("code", Tier.LOW)


# ---- defaulted


@pytest.mark.parametrize("kind", ["voting", "trained"])
def test_near_to_nothing_is_defaulted(kind: str, request: pytest.FixtureRequest) -> None:
    """A query that shares nothing with any utterance has no task and no tier."""
    verdict = judge(request.getfixturevalue(kind), "zzyzx qwfp 8842")
    assert verdict.basis is Basis.DEFAULTED
    assert (verdict.task, verdict.tier) == (None, None)
    assert verdict.best_task in {"code", "biology"}


@pytest.mark.parametrize(
    ("kind", "query"),
    [("voting", "tell me a joke about dogs"), ("trained", "please soup recipe guitar holiday")],
)
def test_nearest_to_none_is_defaulted(
    kind: str, query: str, request: pytest.FixtureRequest
) -> None:
    """A query like the out-of-scope examples has no task, however near it is to them."""
    verdict = judge(request.getfixturevalue(kind), query)
    assert verdict.basis is Basis.DEFAULTED
    assert verdict.task is None
    assert verdict.matches[0].utterance.task == NONE
    assert verdict.confidence < 0.5


@pytest.mark.parametrize("each", [3, 30])
def test_a_set_without_none_still_defaults(each: int) -> None:
    """Without out-of-scope examples nearness alone tells what is out of scope."""
    classifier = Classifier.build(learnable(("code", "biology"), each), HashingEncoder())
    inside = classifier.utterances.utterances[0]
    assert judge(classifier, inside.text).task == inside.task
    assert judge(classifier, "zzyzx qwfp 8842").basis is Basis.DEFAULTED


def test_without_none_the_threshold_keeps_nineteen_in_twenty() -> None:
    """Of a set without out-of-scope examples, 95 % are near enough to some other utterance."""
    small, large = (
        Classifier.build(learnable(("code", "biology"), each), HashingEncoder()) for each in (3, 30)
    )
    vectors = large.embed([u.text for u in large.utterances.utterances])
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    enough = similarities.max(axis=1) >= large.least_similarity
    assert enough.mean() == pytest.approx(0.95, abs=0.02)
    assert large.least_similarity > small.least_similarity > 0


def test_one_out_of_scope_example_teaches_abstention() -> None:
    """Adding out-of-scope examples turns a query like them from a match into a default."""
    query = "kindly football holiday taxi soup"
    everything = "kindly football holiday taxi soup script gene"
    without = Classifier.build(task_set([everything, "please sort samples"]), HashingEncoder())
    assert judge(without, query).task == "only"
    none = Utterance("football holiday taxi soup", NONE)
    utterances = (*without.utterances.utterances, none)
    assert judge(Classifier.build(UtteranceSet(utterances), HashingEncoder()), query).task is None


MIXED = "please show python gene script plasmid"
"""Between two tasks, so that no verdict on it is certain."""


@pytest.mark.parametrize("kind", ["voting", "trained"])
@pytest.mark.parametrize("least", ["a little less", "a little more"])
def test_a_task_may_ask_for_more_confidence(
    kind: str, least: str, request: pytest.FixtureRequest
) -> None:
    """A query below the least confidence of its task is defaulted, above it is matched; that of
    another task changes nothing."""
    plain: Classifier = request.getfixturevalue(kind)
    query = MIXED if kind == "trained" else "write a python script about a gene"
    before = judge(plain, query)
    assert before.task is not None
    assert before.confidence < 1
    bound = before.confidence + (1e-4 if least == "a little more" else -1e-4)
    other = "biology" if before.task == "code" else "code"
    strict = replace(plain.utterances, min_confidence={before.task: bound})
    after = judge(Classifier.build(strict, HashingEncoder()), query)
    assert after.basis is (Basis.DEFAULTED if least == "a little more" else Basis.MATCHED)
    assert (after.best_task, after.confidence) == (before.best_task, before.confidence)
    lenient = replace(plain.utterances, min_confidence={other: 1.0})
    assert judge(Classifier.build(lenient, HashingEncoder()), query).task == before.task


# ---- by head


def test_a_head_is_trained_where_there_is_enough(trained: Classifier) -> None:
    """With forty utterances a task, new sentences of known words get task and tier."""
    verdict = judge(trained, "redesign parser module async loop")
    assert (verdict.task, verdict.tier) == ("code", Tier.HIGH)
    assert judge(trained, "show python class function script").tier is Tier.LOW
    assert judge(trained, "kindly plasmid exon allele").task == "biology"


@pytest.mark.parametrize("kind", ["voting", "trained"])
def test_a_task_without_tiers_gets_none(kind: str, request: pytest.FixtureRequest) -> None:
    """A task whose utterances have no tiers gets none, though other tasks have them."""
    verdict = judge(request.getfixturevalue(kind), "which gene variants are in this genome")
    assert (verdict.task, verdict.tier, verdict.best_tier) == ("biology", None, None)


@pytest.mark.parametrize("kind", ["voting", "trained"])
def test_margin_is_the_lead_over_the_runner_up(kind: str, request: pytest.FixtureRequest) -> None:
    """The runner-up is another task, and the figures lie in [0, 1] and agree."""
    verdict = judge(request.getfixturevalue(kind), "write a python script about a gene")
    assert verdict.best_task == "code"
    assert verdict.runner_up == "biology"
    assert 0 < verdict.margin <= verdict.confidence <= 1
    assert verdict.margin >= 2 * verdict.confidence - 1 - 1e-9


# ---- evidence


@pytest.mark.parametrize("count", [0, 1, 5, 20, 85])
def test_evidence_has_the_count_and_order_asked_for(trained: Classifier, count: int) -> None:
    """So many matches as asked for, nearest first, each with its true similarity."""
    query = "explain the python parser"
    verdict = judge(trained, query, count)
    assert len(verdict.matches) == count
    similarities = [match.similarity for match in verdict.matches]
    assert similarities == sorted(similarities, reverse=True)
    texts = [match.utterance.text for match in verdict.matches]
    assert len({(m.utterance.text, m.utterance.task) for m in verdict.matches}) == len(texts)
    if texts:
        cosines = trained.embed(texts) @ trained.embed([query])[0]
        assert np.allclose(cosines, similarities, atol=1e-5)
        everything = [u.text for u in trained.utterances.utterances]
        assert max(trained.embed(everything) @ trained.embed([query])[0]) == pytest.approx(
            similarities[0], abs=1e-5
        )


def test_evidence_ends_with_the_set(voting: Classifier) -> None:
    """A set smaller than the evidence asked for gives all that it has."""
    assert len(judge(voting, "write a script", 1000).matches) == len(SMALL.utterances)


def test_evidence_does_not_change_the_verdict(trained: Classifier) -> None:
    """How many matches are shown has no part in what is decided."""
    few, many = (judge(trained, "explain the python parser", count) for count in (1, 90))
    assert replace(few, matches=()) == replace(many, matches=())
