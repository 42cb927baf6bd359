"""Plots: confidence against truth, coverage against accuracy, and the map of the utterances."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import TYPE_CHECKING

from semroute_classifier.charts import svg, tag, text, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from semroute_classifier.charts import Html
    from semroute_classifier.evaluation import Bin


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a map, 0 to 1 both ways; ``link`` makes it stand out and lead somewhere."""

    x: float
    y: float
    kind: str
    hover: str
    link: str = ""


_LEFT, _TOP, _WIDE, _HIGH = 46, 12, 430, 300
"""The frame of a plot with axes."""


def reliability(bins: Sequence[Bin], count: int) -> Html:
    """Confidence against how often it was right, and how many queries had it.

    ``count`` is the number of bins that confidence is cut into.
    """
    x, y = _scale(0, 1, _LEFT, _LEFT + _WIDE), _scale(0, 1, _TOP + _HIGH, _TOP)
    parts = [*_grid(x, y, 0.0)]
    parts.append(_line([(x(0), y(0)), (x(1), y(1))], "ideal"))
    floor, room = _TOP + _HIGH + 92, 44
    most = max((b.count for b in bins), default=1)
    for b in bins:
        low, high = wilson(b.accuracy * b.count, b.count)
        cx = x(b.confidence)
        height = max(1.5, room * b.count / most)
        radius = 3 + 5 * sqrt(b.count / most)
        hover = (
            f"confidence {b.number / count:.2f} to {(b.number + 1) / count:.2f}: {b.count} "
            f"queries, mean confidence {b.confidence:.2f}, {b.accuracy:.0%} right"
        )
        parts.append(
            tag(
                "g",
                tag("title", hover),
                _line([(cx, y(low)), (cx, y(high))], "whisker"),
                _line([(cx, y(b.confidence)), (cx, y(b.accuracy))], "gap"),
                tag("circle", cx=cx, cy=y(b.accuracy), r=radius, class_="hit"),
                tag(
                    "rect", x=x(b.number / count) + 1, y=floor - height, width=_WIDE / count - 2,
                    height=height, rx=2, class_="count",
                ),
                text(x((b.number + 0.5) / count), floor + 13, str(b.count), "axis", "middle"),
            )
        )  # fmt: skip
    parts.append(text(x(0.5), _TOP + _HIGH + 34, "confidence", "axis", "middle"))
    parts.append(text(_LEFT - 6, floor, "queries", "axis", "end"))
    return svg(_LEFT + _WIDE + 14, floor + 22, *parts, label="reliability diagram")


def coverage_curve(
    points: Sequence[tuple[float, float]], chosen: tuple[float, float] | None, count: int
) -> Html:
    """Accuracy over the queries that are answered, the surest first, with its 95 % interval.

    ``chosen`` is where the classifier stands; ``count`` is the number of queries at coverage 1.
    """
    settled = [accuracy for coverage, accuracy in points if coverage >= 0.1] or [0.0]
    lowest = min([*settled, *([chosen[1]] if chosen else [])])
    floor = max(0.0, int((lowest - 0.03) * 20) / 20)
    x, y = _scale(0, 1, _LEFT, _LEFT + _WIDE), _scale(floor, 1, _TOP + _HIGH + 58, _TOP)
    parts = [*_grid(x, y, floor)]
    ranges = [(c, *wilson(a * c * count, round(c * count))) for c, a in points]
    band = [(x(c), y(high)) for c, _, high in ranges]
    band += [(x(c), y(low)) for c, low, _ in reversed(ranges)]
    inner = tag("rect", x=_LEFT, y=_TOP - 4, width=_WIDE + 4, height=_HIGH + 62)
    curve = [tag("polygon", points=_path(band), class_="band")] if band else []
    curve.append(_line([(x(c), y(a)) for c, a in points], "curve"))
    parts += [tag("clipPath", inner, id="frame"), tag("g", *curve, clip_path="url(#frame)")]
    if chosen:
        words = f"chosen: {chosen[0]:.1%} answered, {chosen[1]:.1%} right"
        parts.append(_line([(x(chosen[0]), y(floor)), (x(chosen[0]), y(chosen[1]))], "ideal"))
        parts.append(tag("circle", cx=x(chosen[0]), cy=y(chosen[1]), r=6, class_="chosen"))
        parts.append(text(x(chosen[0]) - 12, y(chosen[1]) + 24, words, "strong", "end"))
    foot = _TOP + _HIGH + 92
    parts.append(text(x(0.5), foot, "share of in-scope queries answered", "axis", "middle"))
    return svg(_LEFT + _WIDE + 14, foot + 22, *parts, label="accuracy against coverage")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _grid(x: Callable[[float], float], y: Callable[[float], float], floor: float) -> Iterable[Html]:
    """Faint lines at round shares, with their names."""
    for i in range(6):
        down, up = i / 5, floor + (1 - floor) * i / 5
        yield _line([(x(0), y(up)), (x(1), y(up))], "grid")
        yield text(x(0) - 6, y(up) + 4, f"{up:.0%}", "axis", "end")
        yield text(x(down), y(floor) + 16, f"{down:.0%}", "axis", "middle")


def _line(points: Sequence[tuple[float, float]], kind: str) -> Html:
    return tag("polyline", points=_path(points), class_=kind)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


_MAP_WIDE, _MAP_HIGH, _EDGE = 1060, 640, 24


def scatter(dots: Sequence[Dot], names: dict[str, str]) -> Html:
    """A map: dots in their kind's colour, those with a link ringed and on top.

    ``names`` are what kinds are called, the most important first: a name that would hide one
    before it is left out.
    """
    x = _scale(0, 1, _EDGE, _MAP_WIDE - _EDGE)
    y = _scale(0, 1, _EDGE, _MAP_HIGH - _EDGE)

    def circle(dot: Dot, radius: float, kind: str) -> Html:
        hover = tag("title", dot.hover)
        at = {"cx": x(dot.x), "cy": y(dot.y), "r": radius}
        return tag("circle", hover, **at, class_=f"{kind} {dot.kind}")

    plain = [circle(dot, 3.2, "dot") for dot in dots if not dot.link]
    linked = [tag("a", circle(dot, 6.0, "ring"), href=dot.link) for dot in dots if dot.link]
    words = [text(x(n.x), y(n.y), n.hover, "island", "middle") for n in _names(dots, names)]
    return svg(_MAP_WIDE, _MAP_HIGH, *plain, *linked, *words, label="map of the utterances")


def _names(dots: Sequence[Dot], names: dict[str, str]) -> list[Dot]:
    """Each kind's name, above the middle of its dots without a link."""
    placed: list[Dot] = []
    for kind, name in names.items():
        own = [dot for dot in dots if dot.kind == kind and not dot.link]
        if own:
            middle = median(dot.x for dot in own), median(dot.y for dot in own)
            word = Dot(middle[0], middle[1] - 0.035, kind, name)
            if not any(_collide(word, other) for other in placed):
                placed.append(word)
    return placed


def _collide(one: Dot, other: Dot) -> bool:
    """Whether two names would overlap; a letter is 0.0092 wide, a line 0.03 high."""
    reach = 0.0046 * (len(one.hover) + len(other.hover))
    return abs(one.x - other.x) < reach and abs(one.y - other.y) < 0.03
