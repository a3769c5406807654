"""SVG elements as text that is escaped once, here: names in a bundle are a stranger's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from markupsafe import Markup, escape

from perceiver_runtime.escapes import printable

WIDE, NARROW = 840, 340
"""Units of a drawing for a wide screen and for a phone; one unit is about a pixel."""
SERIES = 6
"""Colours and marks that there are; more series begin again."""
REFERENCE = -1
"""The series of the reference, in the colour of the text."""
Point = tuple[float, float]
Swatch = Literal["line", "block", "mark"]


def style(series: int) -> str:
    """The class of a series."""
    return "ref" if series == REFERENCE else f"s{series % SERIES}"


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. A trailing or inner underscore of an attribute's name stands for nothing or a hyphen."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(_child(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), given, inside, Markup(name))


def text(x: float, y: float, content: str, *, anchor: str = "start", class_: str = "tick") -> Markup:
    """A line of text at a point."""
    return tag("text", content, x=x, y=y, text_anchor=anchor if anchor != "start" else None, class_=class_)


def line(start: Point, end: Point, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def polyline(points: Iterable[Point], class_: str) -> Markup:
    """A line through points."""
    return tag("polyline", points=" ".join(f"{_number(x)},{_number(y)}" for x, y in points), class_=class_)


def marker(at: Point, series: int, size: float = 4.0, shape: int | None = None) -> Markup:
    """The mark of a series: a circle, a square, a triangle, a diamond, or a bar; or in its colour another's `shape`."""
    x, y, r = at[0], at[1], size
    shapes = (
        f"M{_number(x - r)},{_number(y)}a{r},{r} 0 1,0 {2 * r},0a{r},{r} 0 1,0 {-2 * r},0z",
        _path((x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)),
        _path((x, y - r * 1.2), (x + r * 1.1, y + r * 0.9), (x - r * 1.1, y + r * 0.9)),
        _path((x, y - r * 1.3), (x + r * 1.3, y), (x, y + r * 1.3), (x - r * 1.3, y)),
        _path(
            (x - r * 1.2, y - r * 0.4),
            (x + r * 1.2, y - r * 0.4),
            (x + r * 1.2, y + r * 0.4),
            (x - r * 1.2, y + r * 0.4),
        ),
        _path(
            (x - r * 0.4, y - r * 1.2),
            (x + r * 0.4, y - r * 1.2),
            (x + r * 0.4, y + r * 1.2),
            (x - r * 0.4, y + r * 1.2),
        ),
    )
    return tag("path", d=shapes[(series if shape is None else shape) % SERIES], class_=f"mark {style(series)}")


def drawing(width: float, height: float, parts: Iterable[Markup], *, title: str, description: str, key: str) -> Markup:
    """A whole picture with its title and description; `key` is unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-t"),
        tag("desc", description, id=f"{key}-d"),
        *parts,
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
        class_="wide" if width == WIDE else "narrow",
    )


def swatch(series: int, kind: Swatch = "line") -> Markup:
    """What a legend shows of a series: its line with its mark, a block of its colour, or its mark alone."""
    inside = {
        "line": (line((0, 7), (24, 7), f"curve {style(series)}"), *_mark(series, "line")),
        "block": (tag("rect", x=6, y=2, width=12, height=10, class_=f"bar {style(series)}"),),
        "mark": _mark(series, "mark"),
    }[kind]
    return tag("svg", *inside, viewBox="0 0 24 14", width=24, height=14, aria_hidden="true", class_="swatch")


def _mark(series: int, kind: Swatch) -> tuple[Markup, ...]:
    if kind == "mark":
        return (marker((12, 7), REFERENCE, 4, series),)
    return () if series == REFERENCE else (marker((12, 7), series, 3.5),)


def fitted(content: str, width: float, size: float = 12.0) -> str:
    """The text, cut with an ellipsis where it would be wider than `width`, at an average width of its letters."""
    room = max(int(width / (0.56 * size)), 2)
    return content if len(content) <= room else content[: room - 1] + "…"


def _path(first: Point, *others: Point) -> str:
    return "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in (first, *others)) + "z"


def _child(child: object) -> Markup:
    return child if isinstance(child, Markup) else escape(printable(str(child)))


def _value(value: object) -> str:
    return _number(value) if isinstance(value, (int, float)) else printable(str(value))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
