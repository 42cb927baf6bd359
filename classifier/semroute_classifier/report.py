"""An evaluation as one page for people: figures, charts, and every mistake.

The page needs no network and no script, and is light or dark as its reader is.
"""

from __future__ import annotations

from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from semroute_classifier.charts import Html, bars, join, matrix, tag, wilson
from semroute_classifier.encoders import vectors_of
from semroute_classifier.evaluation import BINS, calibration, risk_coverage
from semroute_classifier.landscape import landscape, sample
from semroute_classifier.plots import Dot, coverage_curve, reliability, scatter
from semroute_classifier.utterances import NONE, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from semroute_classifier.classifier import Classifier
    from semroute_classifier.encoders import Vectors
    from semroute_classifier.evaluation import Judged

    Progress = Callable[[int, int], None]

_MOST_CELLS = 24
"""Labels beyond which a matrix cannot be read, and its largest confusions are listed instead."""
_MOST_PAIRS = 24
_MOST_MISTAKES = 400
"""Mistakes on the page; on the map, as many lie as were embedded for it."""
_PALETTE = (
    "214 72% 56%", "24 88% 56%", "152 56% 40%", "345 70% 54%", "268 58% 62%", "44 88% 47%",
    "188 68% 45%", "318 58% 66%", "84 48% 44%", "14 46% 38%", "238 48% 44%", "168 30% 62%",
)  # fmt: skip
"""Hue, saturation and lightness of tasks while they are few; grey is for none."""
_CHUNK = 32


def report(
    classifier: Classifier,
    vectors: Vectors,
    judged: Sequence[Judged],
    figures: dict[str, Any],
    progress: Progress | None = None,
) -> str:
    """The page. ``vectors`` are those of the classifier's utterances, in order.

    ``progress`` is called with (done, total) while queries are embedded for the map.
    """
    labels = sorted(_labels(classifier, judged), key=lambda label: (label == NONE, label))
    kinds = {label: f"k{i}" for i, label in enumerate(labels)}
    mistakes = [j for j in judged if j.said != j.example.task]
    mistakes.sort(key=lambda j: (_ranks(j), -j.verdict.confidence))
    shown = mistakes[:_MOST_MISTAKES]
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", "semroute: how well queries find their task"),
            tag("style", Html(style + _colours(kinds))),
        ]
    )
    body = join(
        [
            _opening(classifier, judged, figures),
            _cards(judged, figures),
            _confusions(figures["confusion"], judged, labels),
            _confidence(judged, figures),
            _map(classifier, vectors, shown, kinds, progress),
            _mistakes(shown, len(mistakes), kinds),
        ]
    )
    page = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _labels(classifier: Classifier, judged: Sequence[Judged]) -> set[str]:
    known = {u.task for u in classifier.utterances.utterances}
    return known | {j.example.task for j in judged} | {j.said for j in judged}


def _colours(kinds: dict[str, str]) -> str:
    """A hue for each task: chosen by hand for a few, spread evenly for many; none is grey."""
    few = len(kinds) <= len(_PALETTE) + 1
    rules = []
    for i, (label, kind) in enumerate(kinds.items()):
        spread = f"{round(i * 137.508) % 360} 55% {(44, 54, 64)[i % 3]}%"
        colour = _PALETTE[i % len(_PALETTE)] if few else spread
        rules.append(f".{kind}{{--c:{'var(--grey)' if label == NONE else f'hsl({colour})'}}}")
    return "".join(rules)


def _opening(classifier: Classifier, judged: Sequence[Judged], figures: dict[str, Any]) -> Html:
    inside = sum(j.example.in_scope for j in judged)
    if figures["accuracy"] is None:
        title = f"{len(judged):,} queries, none of them in scope"
    else:
        title = f"{figures['accuracy']:.1%} of {inside:,} queries find their task"
    utterances = classifier.utterances
    facts = [
        f"{len(utterances.utterances):,} utterances of {len(utterances.tasks)} tasks, "
        f"revision {utterances.revision}",
        f"encoder {figures['encoder']}",
        f"{len(judged) - inside:,} queries out of scope beside them",
    ]
    if figures.get("build_seconds") is not None:
        facts.append(f"built in {figures['build_seconds']:.0f} s")
    return tag("header", tag("h1", title), tag("p", " · ".join(facts)))


def _cards(judged: Sequence[Judged], figures: dict[str, Any]) -> Html:
    inside = [j for j in judged if j.example.in_scope]
    matched = sum(j.matched for j in inside)
    outside, tiered = len(judged) - len(inside), sum(j.example.tier is not None for j in inside)
    latency = figures["latency_ms"]
    cards = [
        _card("Accuracy", figures["accuracy"], "best task right, in scope", len(inside)),
        _card("Lenient", figures["lenient_accuracy"], "acceptable tasks counted", len(inside)),
        _card("Coverage", figures["coverage"], "in scope and answered", len(inside)),
        _card("Selective", figures["selective_accuracy"], "right among the answered", matched),
        _card("Caught", figures["abstain_recall"], "out of scope and sent to default", outside),
        _card("Tier", figures["tier_accuracy"], "tier right, in scope", tiered),
        _plain("AUROC", figures["auroc"], "{:.3f}", "in scope told from out of scope"),
        _plain("Calibration", figures["ece"], "{:.3f}", "expected error; 0 is best"),
        _plain("Latency", latency["p50"], "{:.1f} ms", f"p95 {latency['p95'] or 0:.1f} ms"),
    ]
    return tag("section", *cards, class_="cards")


def _card(name: str, share: float | None, meaning: str, count: int) -> Html:
    if share is None:
        return _plain(name, None, "", meaning)
    low, high = wilson(share * count, count)
    interval = tag(
        "div",
        tag("i", style=f"left:{low:.1%};width:{high - low:.1%}"),
        tag("b", style=f"left:{share:.1%}"),
        class_="interval",
        title=f"95 % interval {low:.1%} to {high:.1%}, of {count} queries",
    )
    return _frame(name, f"{share:.1%}", meaning, interval)


def _plain(name: str, value: float | None, form: str, meaning: str) -> Html:
    return _frame(name, "–" if value is None else form.format(value), meaning)


def _frame(name: str, value: str, meaning: str, *more: Html) -> Html:
    words = tag("h3", name), tag("strong", value), tag("p", meaning)
    return tag("div", *words, *more, class_="card")


def _confusions(
    table: dict[str, dict[str, int]], judged: Sequence[Judged], labels: Sequence[str]
) -> Html:
    few = len(labels) <= _MOST_CELLS
    if few:
        cell = 46 if len(labels) <= 12 else 34
        said = "Rows are the right task, columns what was said; none is the default row."
        parts = [tag("div", tag("p", said), matrix(table, labels, cell))]
    else:
        parts = [
            tag("div", tag("h3", "Most confused"), _pairs(table)),
            tag("div", tag("h3", "Least found"), _weakest(table)),
        ]
    tiers = _tier_table(judged)
    if tiers:
        unsaid = ["unsaid"] if any("unsaid" in row for row in tiers.values()) else []
        note = tag("p", "The same for tiers, over in-scope queries whose tier is known.")
        parts.append(tag("div", note, matrix(tiers, [*(tier.word for tier in Tier), *unsaid])))
    columns = tag("div", *parts, class_="beside" if few else "beside even")
    return tag("section", tag("h2", "What is taken for what"), columns)


def _pairs(table: dict[str, dict[str, int]]) -> Html:
    pairs = sorted(
        ((n, a, b) for a, row in table.items() for b, n in row.items() if a != b),
        key=lambda pair: (-pair[0], pair[1:]),
    )[:_MOST_PAIRS]
    most = max((n for n, *_ in pairs), default=1)
    rows = [
        (f"{a} → {b}", n / most, str(n), f"{n} of {sum(table[a].values())} queries of {a}")
        for n, a, b in pairs
    ]
    return bars(rows, "miss", "most confused pairs")


def _weakest(table: dict[str, dict[str, int]]) -> Html:
    recall = {a: (row.get(a, 0) / sum(row.values()), sum(row.values())) for a, row in table.items()}
    weakest = sorted(recall, key=lambda a: (recall[a][0], a))[:_MOST_PAIRS]
    rows = [(a, recall[a][0], f"{recall[a][0]:.0%}", f"of {recall[a][1]} queries") for a in weakest]
    return bars(rows, "hit", "tasks of lowest recall")


def _tier_table(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for j in judged:
        if j.example.in_scope and j.example.tier:
            said = j.verdict.best_tier.word if j.verdict.best_tier else "unsaid"
            row = table.setdefault(j.example.tier.word, {})
            row[said] = row.get(said, 0) + 1
    return table


def _confidence(judged: Sequence[Judged], figures: dict[str, Any]) -> Html:
    inside = sum(j.example.in_scope for j in judged)
    if not inside:
        return Html()
    coverage, accuracy = figures["coverage"], figures["selective_accuracy"]
    chosen = (coverage, accuracy) if accuracy is not None else None
    calibrated = "A dot on the dashed line means what it says; red is what is missing or too much."
    traded = "The surer a query must be to be answered, the fewer are, and the more are right."
    parts = [
        tag("div", tag("h2", "Is it as sure as it is right?"), tag("p", calibrated),
            reliability(calibration(judged), BINS)),
        tag("div", tag("h2", "What does abstaining buy?"), tag("p", traded),
            coverage_curve(risk_coverage(judged), chosen, inside)),
    ]  # fmt: skip
    return tag("section", *parts, class_="beside even")


def _map(
    classifier: Classifier,
    vectors: Vectors,
    mistakes: Sequence[Judged],
    kinds: dict[str, str],
    progress: Progress | None,
) -> Html:
    utterances = classifier.utterances.utterances
    labels = [u.task for u in utterances]
    rows = sample(labels)
    queries = _embedded(classifier, [j.example.query for j in mistakes], progress)
    places = landscape(np.asarray(vectors), labels, rows, queries)
    dots = [
        Dot(x, y, kinds[labels[row]], f"{labels[row]}: {utterances[row].text}")
        for (x, y), row in zip(places.tolist(), rows.tolist(), strict=False)
    ]
    for i, ((x, y), j) in enumerate(zip(places[len(rows) :].tolist(), mistakes, strict=True)):
        hover = f"{j.example.task}, said to be {j.said}: {j.example.query}"
        dots.append(Dot(x, y, kinds[j.example.task], hover, f"#m{i + 1}"))
    what = (
        f"{len(rows):,} utterances, each in its task's colour; like lies beside like. A ring is a "
        "query that went wrong, in the colour of its right task: it leads to its row below."
    )
    wrong = Counter(j.example.task for j in mistakes)
    names = {kinds[label]: label for label in sorted(kinds, key=lambda label: -wrong[label])}
    return tag("section", tag("h2", "Where the mistakes lie"), tag("p", what), scatter(dots, names))


def _embedded(classifier: Classifier, queries: Sequence[str], progress: Progress | None) -> Vectors:
    rows = [np.empty((0, classifier.encoder.dimension), dtype=np.float32)]
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        rows.append(vectors_of(classifier.embed(chunk), classifier.encoder))
        if progress:
            progress(start + len(chunk), len(queries))
    return np.vstack(rows)


_GROUPS = (("wrong", "wrong task"), ("lost", "sent to default"), ("slipped", "let through"))
"""Kinds of mistake: in scope but of another task, in scope but defaulted, out of scope but not."""


def _group(j: Judged) -> str:
    if not j.example.in_scope:
        return "slipped"
    return "wrong" if j.matched else "lost"


def _ranks(j: Judged) -> int:
    return [name for name, _ in _GROUPS].index(_group(j))


def _mistakes(shown: Sequence[Judged], total: int, kinds: dict[str, str]) -> Html:
    counts = Counter(map(_group, shown))
    pills = [_pill("all", f"all {len(shown)}", checked=True)]
    pills += [_pill(name, f"{words} {counts[name]}") for name, words in _GROUPS if counts[name]]
    head = tag("tr", *(tag("th", name) for name in _COLUMNS))
    rows = [_row(i, j, kinds) for i, j in enumerate(shown, 1)]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    left = f"The first {len(shown)} of {total}. " if total > len(shown) else ""
    what = f"{left}The surest of each kind first, for there the utterances teach something wrong."
    parts = [*pills, tag("div", table, class_="wide")] if shown else [tag("p", "There are none.")]
    return tag("section", tag("h2", "Every mistake"), tag("p", what), *parts, class_="mistakes")


_COLUMNS = ("", "query", "right", "said", "confidence", "nearest utterance")


def _pill(name: str, words: str, *, checked: bool = False) -> Html:
    state = "checked" if checked else None
    choice = tag("input", type="radio", name="group", id=f"g-{name}", checked=state)
    return join([choice, tag("label", words, for_=f"g-{name}")])


def _row(number: int, j: Judged, kinds: dict[str, str]) -> Html:
    verdict = j.verdict
    said: list[Html] = [_chip(j.said, kinds)]
    if j.said == NONE and j.example.in_scope:
        said.append(tag("small", f"best: {verdict.best_task}"))
    elif j.acceptable and j.example.in_scope:
        said.append(tag("small", "acceptable"))
    match = verdict.matches[0]
    nearest = [_chip(match.utterance.task, kinds), tag("span", match.utterance.text)]
    bar = tag("div", tag("i", style=f"width:{verdict.confidence:.0%}"), class_="confidence")
    cells = [
        tag("td", str(number), class_="number"),
        tag("td", j.example.query, class_="query"),
        tag("td", _chip(j.example.task, kinds)),
        tag("td", *said),
        tag("td", f"{verdict.confidence:.2f}", bar),
        tag("td", *nearest, tag("small", f"cosine {match.similarity:.2f}"), class_="query"),
    ]
    return tag("tr", *cells, id=f"m{number}", class_=_group(j))


def _chip(label: str, kinds: dict[str, str]) -> Html:
    return tag("span", label, class_=f"chip {kinds[label]}")
