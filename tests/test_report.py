"""The report: one page that holds every figure and mistake, runs nothing and asks for nothing."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest

from semroute_classifier.artifacts import load_or_build
from semroute_classifier.charts import Html, bars, matrix, tag, wilson
from semroute_classifier.classifier import Classifier
from semroute_classifier.encoders import HashingEncoder
from semroute_classifier.evaluation import BINS, Bin, Example, figures_of, judge_all
from semroute_classifier.landscape import landscape, sample
from semroute_classifier.plots import Dot, coverage_curve, reliability, scatter
from semroute_classifier.report import report
from semroute_classifier.utterances import NONE, Tier, Utterance, UtteranceSet
from semroute_service.cli import main
from semroute_service.testing import UTTERANCES, write_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COOKED = "butter bake onion fry boil <script>'&\""


def drawn(utterances: Sequence[Utterance], examples: Sequence[Example]) -> str:
    """The report of a real classifier over ``utterances`` on ``examples``."""
    encoder = HashingEncoder()
    given = UtteranceSet(tuple(utterances))
    artifact = load_or_build(given, encoder, None)
    classifier = Classifier(given, encoder, artifact)
    judged = judge_all(classifier, examples)
    return report(classifier, artifact.vectors, judged, figures_of(judged, classifier))


def parsed(page: str) -> ElementTree.Element:
    """The page as a tree; it is well-formed XML, so nothing was left open."""
    assert page.startswith("<!doctype html>\n")
    return ElementTree.fromstring(page.removeprefix("<!doctype html>\n"))


def words_of(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows_of(page: str) -> list[list[str]]:
    return [[words_of(cell) for cell in row.iter("td")] for row in parsed(page).iter("tr")][1:]


THEMES = {
    "cooking": "fry bake boil butter onion",
    "sailing": "boat anchor sail harbour tide",
    "music": "violin chord melody tempo choir",
}


def themed(count: int = 10) -> list[Utterance]:
    chance = random.Random(0)
    return [
        Utterance(" ".join(chance.choices(words.split(), k=3)), task, Tier(1 + i % 3))
        for task, words in THEMES.items()
        for i in range(count)
    ]


EXAMPLES = [
    Example("fry onion butter", "cooking", Tier.LOW),
    Example("anchor boat harbour", "sailing", Tier.MEDIUM),
    Example("melody tempo choir", "music", Tier.HIGH),
    Example("bake onion", "music", acceptable=("cooking",)),  # said to be cooking
    Example(COOKED, "sailing"),  # said to be cooking
    Example("boil butter bake", NONE),  # let through
    Example("xyzzy", NONE),
]


@pytest.fixture(scope="module")
def page() -> str:
    return drawn(themed(), EXAMPLES)


# ---- the page


def test_every_mistake_has_a_row(page: str) -> None:
    """Each query that went wrong stands there with right, said, confidence and nearest."""
    rows = {row[1]: row for row in rows_of(page)}
    assert rows["bake onion"][2:4] == ["music", "cookingacceptable"]
    assert rows["boil butter bake"][2:4] == [NONE, "cooking"]
    assert rows[COOKED][2:4] == ["sailing", "cooking"]
    assert len(rows) == 3
    for row in rows.values():
        assert re.fullmatch(r"0\.\d\d|1\.00", row[4])
        assert re.fullmatch(r"cooking.+cosine [01]\.\d\d", row[5])


def test_a_query_cannot_become_a_part_of_the_page(page: str) -> None:
    """Markup in a query is shown as text: no script, no image, no handler."""
    tree = parsed(page)
    assert "<script" not in page
    assert {e.tag for e in tree.iter()} & {"script", "img", "iframe", "link", "object"} == set()
    assert not [name for e in tree.iter() for name in e.attrib if name.startswith("on")]
    assert page.count("&lt;script&gt;") >= 2  # its row, and its ring on the map


def test_the_page_needs_no_network(page: str) -> None:
    """Every link leads to a place of the page itself, and its style loads nothing."""
    tree = parsed(page)
    links = [v for e in tree.iter() for k, v in e.attrib.items() if k in {"href", "src"}]
    assert links
    assert all(link.startswith("#") for link in links)
    style = "".join(e.text or "" for e in tree.iter("style"))
    assert "@import" not in style
    assert "url(" not in style
    assert "prefers-color-scheme: dark" in style


def test_a_ring_on_the_map_leads_to_its_row(page: str) -> None:
    """Every mistake is on the map, and its link is the id of the row with the same query."""
    tree = parsed(page)
    rows = {f"#{row.get('id')}": words_of(row) for row in tree.iter("tr") if row.get("id")}
    rings = {a.get("href"): words_of(a) for a in tree.iter("a")}
    assert rings.keys() == rows.keys()
    for link, hover in rings.items():
        assert hover.split(": ", 1)[1] in rows[str(link)]


def test_the_figures_are_on_the_page(page: str) -> None:
    """The title tells the accuracy, and each figure's card its value."""
    tree = parsed(page)
    title = next(tree.iter("h1"))
    assert words_of(title) == "60.0% of 5 queries find their task"
    cards = [words_of(e) for e in tree.iter("div") if e.get("class") == "card"]
    assert cards[0] == "Accuracy60.0%best task right, in scope"
    assert [card for card in cards if card.startswith("Lenient80.0%")]
    assert [card for card in cards if card.startswith("Caught50.0%")]
    assert len(cards) == 9


def test_the_matrix_counts_what_was_said(page: str) -> None:
    """Each pair of a right task and what was said has a cell with its count."""
    hovers = [words_of(title) for title in parsed(page).iter("title")]
    assert "music said to be cooking: 1 of 2 (50%)" in hovers
    assert "none said to be none: 1 of 2 (50%)" in hovers
    assert len([h for h in hovers if " said to be " in h and " of " in h]) == 16 + 9


def test_without_mistakes_the_page_says_so() -> None:
    """When all is right there is no table and no ring, and a word instead."""
    page = drawn(themed(), EXAMPLES[:3])
    assert "There are none." in page
    assert [e.tag for e in parsed(page).iter() if e.tag in {"table", "a"}] == []


def test_without_a_query_in_scope_there_is_a_page() -> None:
    """Out-of-scope queries alone have no accuracy and no curve, and draw no error."""
    page = drawn(themed(), [Example("xyzzy", NONE)])
    assert "1 queries, none of them in scope" in page
    assert "reliability diagram" not in page


@pytest.mark.parametrize("utterances", [[Utterance("one", "a")], themed(1)], ids=["one", "three"])
def test_the_smallest_sets_have_a_page(utterances: list[Utterance]) -> None:
    """A set too small to be laid out as a map is drawn all the same."""
    assert parsed(drawn(utterances, [Example("one", "a"), Example("two", "b", Tier.LOW)])).tag


def test_many_tasks_have_their_largest_confusions() -> None:
    """Of 150 tasks no matrix is drawn: the most frequent confusion comes first, with its count."""
    utterances = [Utterance(f"word{t} thing{t} {i}", f"t{t}") for t in range(150) for i in range(3)]
    wrong = [Example(f"word7 thing7 {i}", "t8") for i in range(4)]
    right = [Example(f"word{t} thing{t}", f"t{t}") for t in range(150)]
    page = drawn(utterances, [*right, *wrong])
    charts = {svg.get("aria-label"): svg for svg in parsed(page).iter("svg")}
    assert "confusion matrix" not in charts
    names = [t.text for t in charts["most confused pairs"].iter("text")]
    assert names[:2] == ["t8 → t7", "4"]
    assert len(names) < 60
    assert next(charts["tasks of lowest recall"].iter("text")).text == "t8"


# ---- charts


def test_text_is_escaped_and_markup_is_not() -> None:
    """``tag`` escapes its texts and its attributes' values, once; elements in it stay elements."""
    inner = tag("b", "<i>&", title='"<')
    assert inner == '<b title="&quot;&lt;">&lt;i&gt;&amp;</b>'
    assert tag("p", inner, " & ") == f"<p>{inner} &amp; </p>"
    assert tag("meta", name="a") == '<meta name="a"/>'
    assert isinstance(inner, Html)


def test_the_interval_is_wilsons() -> None:
    """Eight of ten is 49 to 94 %; of nothing, nothing is known; the ends stay in 0 to 1."""
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=0.001)
    assert wilson(0, 0) == (0, 1)
    assert wilson(10, 10)[1] == 1
    assert wilson(0, 10)[0] == 0


def numbers(element: ElementTree.Element, *names: str) -> tuple[float, ...]:
    return tuple(float(element.get(name, "nan")) for name in names)


def test_a_dot_on_the_diagonal_is_calibrated() -> None:
    """A bin as right as it is sure has its dot on the dashed line; one less right is below."""
    tree = ElementTree.fromstring(reliability([Bin(7, 5, 0.5, 0.5), Bin(12, 9, 0.8, 0.2)], BINS))
    ideal = next(e for e in tree.iter("polyline") if e.get("class") == "ideal")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in str(ideal.get("points")).split())
    on, below = (numbers(c, "cx", "cy", "r") for c in tree.iter("circle"))
    assert on[1] == pytest.approx(y0 + (y1 - y0) * (on[0] - x0) / (x1 - x0), abs=0.1)
    assert below[1] > y0 + (y1 - y0) * (below[0] - x0) / (x1 - x0)
    assert below[2] > on[2]


def test_the_chosen_point_lies_where_it_says() -> None:
    """The mark of the classifier's own choice is on the curve where the curve has that point."""
    points = [(0.5, 1.0), (0.8, 0.9), (1.0, 0.8)]
    tree = ElementTree.fromstring(coverage_curve(points, (0.8, 0.9), 10))
    curve = next(e for e in tree.iter("polyline") if e.get("class") == "curve")
    (mark,) = tree.iter("circle")
    drawn_points = [tuple(map(float, p.split(","))) for p in str(curve.get("points")).split()]
    assert numbers(mark, "cx", "cy") == pytest.approx(drawn_points[1], abs=0.1)
    assert "chosen: 80.0% answered, 90.0% right" in [e.text for e in tree.iter("text")]


def test_a_longer_bar_is_more() -> None:
    """Bars are as long as their value, each named and written."""
    tree = ElementTree.fromstring(bars([("a", 1.0, "10", "x"), ("b", 0.5, "5", "y")], "hit", "z"))
    one, half = (numbers(e, "width")[0] for e in tree.iter("rect"))
    assert one == pytest.approx(2 * half)
    assert [e.text for e in tree.iter("text")] == ["a", "10", "b", "5"]


def test_a_deeper_cell_is_a_larger_share() -> None:
    """Of two cells of the diagonal the one whose row is more often right is filled more."""
    tree = ElementTree.fromstring(
        matrix({"a": {"a": 9, "b": 1}, "b": {"a": 5, "b": 5}}, ["a", "b"])
    )
    hits = [numbers(e, "fill-opacity")[0] for e in tree.iter("rect") if e.get("class") == "hit"]
    assert hits == sorted(hits, reverse=True)
    assert hits[0] > hits[1]


def test_names_on_the_map_do_not_hide_each_other() -> None:
    """Of two names in one place the more important stays; a name elsewhere stays, too."""
    dots = [Dot(0.5, 0.5, "k0", ""), Dot(0.5, 0.5, "k1", ""), Dot(0.1, 0.1, "k2", "")]
    tree = ElementTree.fromstring(scatter(dots, {"k1": "one", "k0": "two", "k2": "three"}))
    assert [e.text for e in tree.iter("text")] == ["one", "three"]


# ---- the map


def test_the_map_shows_tasks_apart() -> None:
    """Nearly every point lies beside one of its own task, a query, too; all lie in 0 to 1."""
    chance = np.random.default_rng(0)
    centers = chance.standard_normal((4, 32)) * 2
    labels = [f"t{i % 4}" for i in range(200)]
    points = np.stack([centers[i % 4] for i in range(200)]) + chance.standard_normal((200, 32))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    places = landscape(points[:190], labels[:190], np.arange(190), points[190:])
    assert places.shape == (200, 2)
    assert places.min() == 0
    assert places.max() == 1
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    agree = [labels[i] == labels[j] for i, j in enumerate(nearest)]
    assert np.mean(agree) > 0.95
    assert np.mean(agree[190:]) >= 0.8


def test_the_map_is_the_same_each_time() -> None:
    """The same points are laid out alike, also where some are equal."""
    points = np.repeat(np.eye(8, dtype=np.float32), 2, axis=0)
    labels = [f"t{i // 4}" for i in range(16)]
    none = np.empty((0, 8), dtype=np.float32)
    first, second = (landscape(points, labels, np.arange(16), none) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_sample_takes_from_everywhere() -> None:
    """Few are taken all; of many so many that no task is left out."""
    assert sample(["a"] * 5, 10).tolist() == [0, 1, 2, 3, 4]
    labels = [f"t{i // 10}" for i in range(1000)]
    rows = sample(labels, 200)
    assert len(rows) == 200
    assert {labels[row] for row in rows} == set(labels)


# ---- the command


def test_evaluate_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--report writes the page, says where, and the figures are printed all the same."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "utterances", UTTERANCES)
    arguments = ["evaluate", "f.jsonl", "--encoder", "hashing", "--cascade", "off", "--json"]
    (tmp_path / "f.jsonl").write_text('{"query": "<b>it</b>", "task": "biomedical"}\n')
    assert main([*arguments, "--report", "out.html"]) == 0
    out, err = capsys.readouterr()
    assert '"n": 1' in out
    assert err == "the report: out.html\n"
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "1 queries find their task" in words_of(parsed(page))
    assert main([*arguments, "--report", "nowhere/out.html"]) == 1
    assert "nowhere/out.html: No such file" in capsys.readouterr().err
