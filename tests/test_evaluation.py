"""The figures: each against what a person reckons, and files of examples read strictly."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from semroute_classifier.classifier import Classifier
from semroute_classifier.documents import ConfigError
from semroute_classifier.evaluation import (
    BINS,
    Bin,
    Example,
    calibration,
    evaluate,
    figures_of,
    judge_all,
    load_examples,
    risk_coverage,
)
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from semroute_classifier.encoders import Vectors

AXES = ("alpha", "beta", "gamma")


class AxisEncoder:
    """Every word of ``AXES`` has an axis of its own, and every other text as a whole has one."""

    name = "axes"
    dimension = width = len(AXES) + 64
    fingerprint = "axes-1"
    window = 1_000

    def __init__(self) -> None:
        self._others: dict[str, int] = {}

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            known = [AXES.index(word) for word in text.split() if word in AXES]
            row[known or self._others.setdefault(text, len(AXES) + len(self._others))] = 1
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]


UTTERANCES = UtteranceSet(
    (
        Utterance("alpha", "a", Tier.LOW),
        Utterance("beta", "b", Tier.HIGH),
        Utterance("gamma", NONE),
    )
)

# "alpha" is a, LOW; "beta" is b, HIGH; each with a confidence of very nearly 1. "alpha beta" lies
# between both, so that a comes first with very nearly one half. "gamma" is nearest to none: it is
# defaulted, its best task is a, and its confidence is very nearly 0.
EXAMPLES = [
    Example("alpha", "a", Tier.LOW),  # right
    Example("beta", "b", Tier.MEDIUM),  # right, but for the tier
    Example("alpha beta", "b", Tier.HIGH, ("a",)),  # wrong, acceptable, wrong tier
    Example("gamma", "a", Tier.LOW),  # right, but defaulted
    Example("gamma", NONE),  # caught
    Example("alpha", NONE),  # missed
]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.build(UTTERANCES, AxisEncoder())


@pytest.fixture(scope="module")
def figures(classifier: Classifier) -> dict[str, Any]:
    return evaluate(classifier, EXAMPLES)


# ---- each figure


@pytest.mark.parametrize(
    ("name", "reckoned"),
    [
        ("n", 6),
        ("accuracy", 3 / 4),  # all in scope but "alpha beta"
        ("lenient_accuracy", 4 / 4),  # with it
        ("coverage", 3 / 4),  # all in scope but "gamma"
        ("selective_accuracy", 2 / 3),  # of those three, all but "alpha beta"
        ("abstain_precision", 1 / 2),  # two were defaulted, one of them rightly
        ("abstain_recall", 1 / 2),  # two were out of scope, one of them defaulted
        # In scope 1, 1, ½, 0 against out of scope 0, 1: of eight pairs 1+½, 1+½, 1+0, ½+0 are won.
        ("auroc", 4.5 / 8),
        ("tier_accuracy", 2 / 4),
        # LOW was said thrice, twice rightly, and never missed: F1 is 4/5. MEDIUM and HIGH have 0.
        ("tier_macro_f1", (4 / 5) / 3),
        # Two are sure and right, one is half sure and wrong, one is unsure and right, of four.
        ("ece", (0 + 0 + 1 / 2 + 1) / 4),
        (
            "confusion",
            {"a": {"a": 1, "none": 1}, "b": {"a": 1, "b": 1}, "none": {"a": 1, "none": 1}},
        ),
        ("static_share", 0),  # the classifier has no static encoder
        ("static_slip", 0),
        ("encoder", "axes"),
        ("utterances_revision", UTTERANCES.revision),
    ],
)
def test_a_figure_is_what_a_person_reckons(
    figures: dict[str, Any], name: str, reckoned: Any
) -> None:
    """On six queries whose verdicts are plain, each figure equals the one reckoned by hand."""
    if isinstance(reckoned, float):
        reckoned = pytest.approx(reckoned, abs=0.002)
    assert figures[name] == reckoned


def test_every_figure_is_there(figures: dict[str, Any]) -> None:
    """The list above leaves out no figure but the latency."""
    marks: Any = test_a_figure_is_what_a_person_reckons
    checked = {name for name, _ in marks.pytestmark[0].args[1]}
    assert figures.keys() - checked == {"latency_ms"}


def test_latency_is_two_positive_figures(figures: dict[str, Any]) -> None:
    """The median is above zero and not above the 95th percentile."""
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]


def test_figures_are_json(figures: dict[str, Any]) -> None:
    """Every figure survives being written and read as strict JSON."""
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_tier_that_is_not_said_is_wrong(classifier: Classifier) -> None:
    """An example whose tier is known but whose task has none counts as a wrong tier."""
    untiered = UtteranceSet((Utterance("alpha", "a"),))
    figures = evaluate(Classifier.build(untiered, AxisEncoder()), EXAMPLES[:1])
    assert (figures["accuracy"], figures["tier_accuracy"], figures["tier_macro_f1"]) == (1, 0, 0)


def test_calibration_is_seen_bin_by_bin(classifier: Classifier) -> None:
    """Half sure and right half the time is perfect; each half sure alone is not."""
    between = [Example("alpha beta", "a"), Example("beta alpha", "b")]
    assert evaluate(classifier, between)["ece"] == pytest.approx(0, abs=0.002)
    assert evaluate(classifier, between[:1])["ece"] == pytest.approx(1 / 2, abs=0.002)
    assert evaluate(classifier, between[1:])["ece"] == pytest.approx(1 / 2, abs=0.002)


def test_perfect_answers_give_perfect_figures(classifier: Classifier) -> None:
    """When everything is right, every share is 1 and nothing is confused."""
    right = [Example("alpha", "a", Tier.LOW), Example("beta", "b", Tier.HIGH)]
    figures = evaluate(classifier, [*right, Example("gamma", NONE)])
    shares = [
        "accuracy", "lenient_accuracy", "coverage", "selective_accuracy", "abstain_precision",
        "abstain_recall", "auroc", "tier_accuracy", "tier_macro_f1",
    ]  # fmt: skip
    assert {name: figures[name] for name in shares} == dict.fromkeys(shares, 1)
    assert figures["ece"] == pytest.approx(0, abs=0.002)
    assert figures["confusion"] == {"a": {"a": 1}, "b": {"b": 1}, "none": {"none": 1}}


# ---- what cannot be computed


def missing(figures: dict[str, Any]) -> set[str]:
    return {name for name, value in figures.items() if value is None}


IN_SCOPE = {
    "accuracy", "lenient_accuracy", "coverage", "selective_accuracy", "tier_accuracy",
    "tier_macro_f1", "ece",
}  # fmt: skip
OUT_OF_SCOPE = {"abstain_recall", "static_slip"}


@pytest.mark.parametrize(
    ("examples", "absent"),
    [
        ([Example("gamma", NONE)], IN_SCOPE | {"auroc"}),
        ([Example("alpha", NONE)], IN_SCOPE | {"auroc", "abstain_precision"}),
        (
            [Example("alpha", "a")],
            {"tier_accuracy", "tier_macro_f1", "auroc", "abstain_precision"} | OUT_OF_SCOPE,
        ),
        ([Example("gamma", "a", Tier.LOW)], {"selective_accuracy", "auroc"} | OUT_OF_SCOPE),
        ([], IN_SCOPE | OUT_OF_SCOPE | {"auroc", "abstain_precision", "static_share"}),
    ],
    ids=["caught alone", "missed alone", "in scope, no tier", "defaulted alone", "nothing"],
)
def test_what_cannot_be_computed_is_none(
    classifier: Classifier, examples: list[Example], absent: set[str]
) -> None:
    """A figure over no query is null, never zero and never an error; the others are there."""
    assert missing(evaluate(classifier, examples)) == absent


def test_no_query_has_no_latency(classifier: Classifier) -> None:
    """Without a query there is no time to tell, and the counts are empty."""
    figures = evaluate(classifier, [])
    assert figures["latency_ms"] == {"p50": None, "p95": None}
    assert (figures["n"], figures["confusion"]) == (0, {})


# ---- judging, and what the charts are drawn from


def test_each_query_is_asked_once_and_on_its_own(classifier: Classifier) -> None:
    """Examples with the same query share a verdict and its time; progress counts queries."""
    told: list[tuple[int, int]] = []
    judged = judge_all(classifier, EXAMPLES, progress=lambda *counts: told.append(counts))
    assert [j.example for j in judged] == EXAMPLES
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert judged[0].verdict is judged[5].verdict
    assert judged[0].milliseconds == judged[5].milliseconds > 0
    assert [j.said for j in judged] == ["a", "b", "a", NONE, NONE, "a"]


def test_the_cascade_judges_too(classifier: Classifier) -> None:
    """With the cascade every example has a verdict, and every figure is there."""
    judged = judge_all(classifier, EXAMPLES, cascade=True)
    assert figures_of(judged, classifier).keys() == evaluate(classifier, EXAMPLES).keys()
    assert [j.example for j in judged] == EXAMPLES


def test_bins_hold_what_lies_in_them(classifier: Classifier) -> None:
    """Of four queries in scope two are sure, one half sure and one unsure; bins are in order."""
    bins = calibration(judge_all(classifier, EXAMPLES))
    assert [(b.number, b.count) for b in bins] == [(0, 1), (BINS // 2, 1), (BINS - 1, 2)]
    assert [b.accuracy for b in bins] == [1, 0, 1]
    assert [b.confidence for b in bins] == pytest.approx([0, 1 / 2, 1], abs=0.002)
    assert all(isinstance(b, Bin) for b in bins)


def test_fewer_answers_are_surer(classifier: Classifier) -> None:
    """Answers come in the order of their confidence, those of equal confidence together."""
    points = risk_coverage(judge_all(classifier, [*EXAMPLES, EXAMPLES[2], EXAMPLES[3]]))
    # "alpha" and "beta" first, each right; "alpha beta" twice, wrong; "gamma" twice, right.
    assert [coverage for coverage, _ in points][-2:] == [4 / 6, 1]
    assert points[-2:] == [(4 / 6, 2 / 4), (1, 4 / 6)]
    assert all(accuracy == 1 for coverage, accuracy in points if coverage <= 2 / 6)


def test_without_a_query_in_scope_there_is_no_curve(classifier: Classifier) -> None:
    """Out-of-scope queries alone fill no bin and draw no curve."""
    judged = judge_all(classifier, EXAMPLES[4:])
    assert (calibration(judged), risk_coverage(judged)) == ([], [])


# ---- files


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    """Every key has its meaning; blank lines, other keys and nulls are passed over."""
    path = written(
        tmp_path,
        '{"query": "one", "task": "a", "tier": "high", "acceptable": ["b", "c"]}\n'
        "\n"
        '{"query": " Größe? 🧬", "task": "none", "source": "ticket 7"}\r\n'
        '{"query": "three", "task": "b", "tier": null, "acceptable": null}',
    )
    assert load_examples(path) == [
        Example("one", "a", Tier.HIGH, ("b", "c")),
        Example(" Größe? 🧬", NONE),
        Example("three", "b"),
    ]


def test_separators_inside_a_query_do_not_end_its_line(tmp_path: Path) -> None:
    """Only a line feed ends a line, for JSON text may hold every other separator as it is."""
    query = "one\u2028two\u2029three\u0085four"
    row = json.dumps({"query": query, "task": "a"}, ensure_ascii=False)
    assert load_examples(written(tmp_path, row + "\n")) == [Example(query, "a")]


BROKEN = {
    '{"query": "one", "task"': "Expecting",
    "query: one": "Expecting value",
    '["one", "a"]': "must be a JSON object",
    '"one"': "must be a JSON object",
    '{"task": "a"}': "query must be text",
    '{"query": "  ", "task": "a"}': "query must be text that is not empty",
    '{"query": 7, "task": "a"}': "query must be text",
    '{"query": "half \\ud83d", "task": "a"}': "query holds half a surrogate pair",
    '{"query": "one"}': "task must be the name of a task",
    '{"query": "one", "task": ""}': "task must be the name of a task",
    '{"query": "one", "task": ["a"]}': "task must be the name of a task",
    '{"query": "one", "task": "a", "tier": "HIGH"}': "tier must be low, medium or high, not 'HIGH'",
    '{"query": "one", "task": "a", "tier": 3}': "tier must be low, medium or high, not 3",
    '{"query": "one", "task": "a", "tier": ["low"]}': "tier must be low, medium or high",
    '{"query": "one", "task": "a", "acceptable": "b"}': "acceptable must be a list",
    '{"query": "one", "task": "a", "acceptable": [1]}': "acceptable must be a list",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    """A line that is wrong is named by file and number, with what would be right."""
    path = written(tmp_path, f'{{"query": "fine", "task": "a"}}\n\n{line}\n')
    with pytest.raises(ConfigError, match=re.escape(BROKEN[line])) as caught:
        load_examples(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(path), 3)
    assert str(problem).startswith(f"{path}:3: ")


def test_all_broken_lines_are_told_at_once(tmp_path: Path) -> None:
    """A person mends a file in one go: every wrong line is in the one error."""
    good = '{"query": "fine", "task": "a"}'
    path = written(tmp_path, "\n".join([*BROKEN, good, *BROKEN]))
    with pytest.raises(ConfigError) as caught:
        load_examples(path)
    count = len(BROKEN)
    expected = [*range(1, count + 1), *range(count + 2, 2 * count + 2)]
    assert [problem.line for problem in caught.value.problems] == expected


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file without any example is a mistake, not a perfect score."""
    with pytest.raises(ConfigError, match="holds no example"):
        load_examples(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are told by their path."""
    with pytest.raises(ConfigError, match=r"missing\.jsonl"):
        load_examples(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"query": "Größe", "task": "a"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.jsonl"):
        load_examples(tmp_path / "latin.jsonl")
