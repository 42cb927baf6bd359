"""Turns of every kind: odd, long, vague or many at once, each is judged alike and as it should."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from semroute_classifier.classifier import Basis, Classification, Classifier, Turn
from semroute_classifier.encoders import HashingEncoder
from test_classifier import SMALL, judge, learnable

if TYPE_CHECKING:
    from pathlib import Path

    from semroute_classifier.utterances import UtteranceSet


@pytest.fixture(scope="module")
def voting() -> Classifier:
    return Classifier.build(SMALL, HashingEncoder())


@pytest.fixture(scope="module")
def trained() -> Classifier:
    return Classifier.build(learnable(), HashingEncoder())


# ---- odd input

ODD = {
    "a megabyte of one letter": "a" * 1_000_000,
    "a megabyte of words": "python " * 150_000,
    "a megabyte of emoji": "🧬" * 250_000,
    "control characters": "\x00\x01\x07\x1b[31m\x7f\r\n\t",
    "emoji": "🧬🔬👩‍🔬 ➡️ 💻❓",
    "right to left": "اكتب برنامجًا بلغة بايثون ‏ ‮ כתוב תוכנית",
    "base64": base64.b64encode(bytes(range(256)) * 40).decode(),
    "white space": " \n\t\u00a0\u3000\u200b",
    "one letter": "x",
    "combining marks": "Z̷̗̈a̴l̸̤̇g̶̔o " * 50,
    "nothing": "",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("kind", ["voting", "trained"])
def test_odd_input_gets_a_whole_verdict(
    kind: str, text: str, request: pytest.FixtureRequest
) -> None:
    """Whatever is sent is judged: figures in range, evidence there, and the parts agree."""
    verdict = judge(request.getfixturevalue(kind), text)
    assert 0 <= verdict.confidence <= 1
    assert 0 <= verdict.margin <= 1
    assert len(verdict.matches) == 5
    assert all(-1.001 <= match.similarity <= 1 for match in verdict.matches)
    assert (verdict.task is None) == (verdict.basis is Basis.DEFAULTED)


@pytest.mark.parametrize(("count", "cut"), [(10, False), (100_000, True)])
def test_a_long_text_says_that_it_was_cut(trained: Classifier, count: int, cut: bool) -> None:
    """A text that is read in part says so, a short one does not, and the middle changes nothing."""
    head, tail = "show python class function script", "compile python loop parser"
    between = "\n\n".join(f"unrelated line {i} of a log" for i in range(count))
    verdict = trained.classify([f"{head}\n{between}\n{tail}"])[0]
    assert verdict.cut is cut
    if cut:
        assert verdict.task == "code"
        other = trained.classify([f"{head}\n{between.replace('line 50000', 'gene')}\n{tail}"])[0]
        assert_alike(verdict, other)


# ---- turns


@pytest.mark.parametrize("cascade", [False, True])
def test_a_vague_follow_up_is_read_in_context(trained: Classifier, cascade: bool) -> None:
    """A short turn that says little takes the task of the turn before, and says that it did."""
    before = "show python class function script"
    verdict = trained.classify([Turn("and faster", before)], cascade=cascade)[0]
    assert (verdict.task, verdict.in_context) == ("code", True)


def test_a_turn_that_speaks_for_itself_is_read_alone(trained: Classifier) -> None:
    """A clear turn, a long one, and one with nothing before it are judged by themselves."""
    own = trained.utterances.utterances[-1 - 40].text  # of biology
    alone = trained.classify([own, "xyzzy " * 30, "and faster"])
    before = "show python class function script"
    turns = [Turn(own, before), Turn("xyzzy " * 30, before), Turn("and faster")]
    for turn, verdict in zip(trained.classify(turns), alone, strict=True):
        assert not turn.in_context
        assert_alike(turn, verdict)
    assert alone[0].task == "biology"


def test_turns_are_judged_alike_alone_and_together(trained: Classifier) -> None:
    """Follow-ups among other queries keep their places and their own turns before."""
    before = ["show python class function script", "kindly plasmid exon allele gene"]
    turns = [Turn("and faster", before[0]), Turn(before[0]), Turn("and faster", before[1])]
    together = trained.classify(turns)
    assert [v.task for v in together] == ["code", "code", "biology"]
    for turn, verdict in zip(turns, together, strict=True):
        assert_alike(verdict, trained.classify([turn])[0])


def test_nothing_asked_is_nothing_answered(trained: Classifier) -> None:
    """No turn gives no verdict."""
    assert trained.classify([]) == []


# ---- company and determinism

QUERIES = [
    *(u.text for u in learnable().utterances[::5]),
    "show plasmid loop weather",
    "fry an egg",
    "python gene joke",
    "",
    "x" * 50_000,
]


def assert_alike(one: Classification, other: Classification) -> None:
    """The same verdict, but for what the order of additions does to the last digits."""
    assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
    assert one.margin == pytest.approx(other.margin, abs=1e-4)
    assert one.tier_confidence == pytest.approx(other.tier_confidence, abs=1e-4)
    assert dict(one.odds) == pytest.approx(dict(other.odds), abs=1e-4)
    for mine, theirs in zip(one.matches, other.matches, strict=True):
        assert mine.similarity == pytest.approx(theirs.similarity, abs=1e-5)
    one, other = (
        replace(v, confidence=0, margin=0, tier_confidence=0, odds=(), matches=())
        for v in (one, other)
    )
    assert one == other


@pytest.mark.parametrize("kind", ["voting", "trained"])
@pytest.mark.parametrize("seed", range(5))
def test_a_verdict_does_not_depend_on_company(
    kind: str, seed: int, request: pytest.FixtureRequest
) -> None:
    """A query is judged alike alone and anywhere in any company."""
    classifier: Classifier = request.getfixturevalue(kind)
    company = random.Random(seed).choices(QUERIES, k=2 ** (seed + 1))
    together = classifier.judge(company, classifier.embed(company))
    for query, verdict in zip(company, together, strict=True):
        assert_alike(verdict, judge(classifier, query))


@pytest.mark.parametrize("utterances", [SMALL, learnable()], ids=["voting", "trained"])
def test_builds_are_deterministic(utterances: UtteranceSet) -> None:
    """Two builds from the same set give the same verdicts to the last digit."""
    one, other = (Classifier.build(utterances, HashingEncoder()) for _ in range(2))
    assert one.threshold == other.threshold
    states = one.embed(QUERIES)
    assert one.judge(QUERIES, states) == other.judge(QUERIES, states)


@pytest.mark.parametrize("utterances", [SMALL, learnable()], ids=["voting", "trained"])
def test_a_kept_classifier_judges_as_a_fresh_one(utterances: UtteranceSet, tmp_path: Path) -> None:
    """What is read back from home gives the same verdicts as what was just built."""
    fresh, kept = (Classifier.build(utterances, HashingEncoder(), tmp_path) for _ in range(2))
    states = fresh.embed(QUERIES)
    assert fresh.threshold == kept.threshold
    assert fresh.judge(QUERIES, states) == kept.judge(QUERIES, states)
