"""Charts as SVG, drawn by small functions: crisp at every size, no script, no library.

Colours are classes of the page's style, so that one chart serves light and dark. Text that is
not ``Html`` is escaped by ``tag``, the only maker of markup: a query can never become a part
of the page.
"""

from __future__ import annotations

from html import escape
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_VOID = frozenset({"input", "meta"})


class Html(str):
    """Text that is markup already; every other text is escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """An element. ``class_`` is the attribute class, ``text_anchor`` is text-anchor."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Elements and texts one after another, the texts escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children))


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def svg(width: float, height: float, *children: str, label: str) -> Html:
    """A picture that fills its column; ``label`` is what it is to who cannot see it."""
    return tag(
        "svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label,
        style=f"max-width:{width:g}px",
    )  # fmt: skip


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Html:
    return tag("text", content, x=x, y=y, class_=kind or None, text_anchor=anchor)


def wilson(right: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was ``right`` of ``count`` (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z2 = 1.96**2
    center = (right + z2 / 2) / (count + z2)
    half = 1.96 / (count + z2) * sqrt(right * (count - right) / count + z2 / 4)
    return max(0.0, center - half), min(1.0, center + half)


def matrix(table: dict[str, dict[str, int]], labels: Sequence[str], cell: float = 46) -> Html:
    """How often each label (row) was said to be each (column); a cell's depth is its row's share.

    Beside a row stands the share of it that is right, below a column the share of those said.
    """
    left, top = 8 + 7.6 * max(map(len, labels)), 24 + 5.2 * max(map(len, labels))
    side = cell * len(labels)
    said = {b: sum(table.get(a, {}).get(b, 0) for a in labels) for b in labels}
    parts: list[str] = []
    for i, row in enumerate(labels):
        counts = table.get(row, {})
        total = sum(counts.values())
        y = top + i * cell
        parts.append(text(left - 8, y + cell / 2 + 4, row, "label", "end"))
        parts.append(text(left + side + 10, y + cell / 2 + 4, _share(counts.get(row, 0), total)))
        parts += [
            _cell(left + j * cell, y, cell, row, column, counts.get(column, 0), total)
            for j, column in enumerate(labels)
        ]
    for j, column in enumerate(labels):
        x, right = left + (j + 0.5) * cell, table.get(column, {}).get(column, 0)
        turned = f"rotate(-40 {x:.6g} {top - 8:.6g})"
        parts.append(tag("text", column, x=x, y=top - 8, class_="label", transform=turned))
        parts.append(text(x, top + side + 18, _share(right, said[column]), "", "middle"))
    parts.append(text(left + side + 10, top - 8, "recall", "axis"))
    parts.append(text(left - 8, top + side + 18, "precision", "axis", "end"))
    width = left + side + 10 + max(44, 3.9 * max(map(len, labels)))
    return svg(width, top + side + 28, *parts, label="confusion matrix")


def _cell(x: float, y: float, size: float, row: str, column: str, count: int, total: int) -> Html:
    share = count / total if total else 0.0
    kind = "hit" if row == column else "miss"
    depth = share if row == column else min(1.0, 2.2 * sqrt(share) * 0.6)
    box = tag(
        "rect", x=x + 1, y=y + 1, width=size - 2, height=size - 2, rx=3,
        class_=kind if count else "blank", fill_opacity=0.12 + 0.88 * depth if count else None,
    )  # fmt: skip
    hover = tag("title", f"{row} said to be {column}: {count} of {total} ({share:.0%})")
    if not count or size < 22:
        return tag("g", hover, box)
    number = text(x + size / 2, y + size / 2 + 4, str(count), "on" if depth > 0.5 else "", "middle")
    return tag("g", hover, box, number)


def bars(rows: Sequence[tuple[str, float, str, str]], kind: str, label: str) -> Html:
    """(name, length from 0 to 1, what to write, what to show on hover), one below the other."""
    width, step, start = 520, 22, 8 + 7.4 * max((len(name) for name, *_ in rows), default=0)
    parts: list[str] = []
    for i, (name, length, written, hover) in enumerate(rows):
        y = i * step
        x = start + max(2.0, length * (width - start - 70))
        bar = tag("rect", x=start, y=y + 4, width=x - start, height=step - 8, rx=3, class_=kind)
        words = text(start - 8, y + 15, name, "label", "end"), text(x + 6, y + 15, written)
        parts.append(tag("g", tag("title", hover), bar, *words))
    return svg(width, max(1, len(rows)) * step, *parts, label=label)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
