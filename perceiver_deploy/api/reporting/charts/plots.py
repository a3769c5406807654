"""Curves and points over two axes, linear or logarithmic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perceiver_deploy.api.reporting.charts.axes import Axis
from perceiver_deploy.api.reporting.charts.svg import NARROW, Point, fitted, line, marker, polyline, style, text

LEFT, RIGHT, TOP, BOTTOM = 52.0, 22.0, 28.0, 44.0
PLOT_HEIGHT = 250.0
MAX_MARKS = 40
"""Of a curve with more points, none is marked."""


@dataclass(frozen=True)
class Line:
    """A series: its points joined by a line, marked (with the `shape` of another), or both.

    `label` is written at the last point.
    """

    points: tuple[Point, ...]
    series: int
    joined: bool = True
    marked: bool = True
    muted: bool = False
    label: str = ""
    shape: int | None = None


def plot(width: float, lines: Sequence[Line], x: Axis, y: Axis) -> tuple[float, list[Markup]]:
    """Height and parts of a plot of this width."""
    height = PLOT_HEIGHT if width > NARROW else PLOT_HEIGHT * 0.86
    box = (LEFT, TOP, width - RIGHT, TOP + height)
    drawn = [part for each in lines for part in _line(each, box, x, y)]
    return TOP + height + BOTTOM, [*_grid(box, x, y), *drawn]


def _grid(box: tuple[float, float, float, float], x: Axis, y: Axis) -> Iterator[Markup]:
    left, top, right, bottom = box
    for tick in y.ticks:
        at = y.at(tick, bottom, top)
        yield line((left, at), (right, at), "grid")
        yield text(left - 8, at + 4, y.text(tick), anchor="end")
    for tick in _spaced(x, right - left):
        at = x.at(tick, left, right)
        yield line((at, top), (at, bottom), "grid")
        yield text(at, bottom + 18, x.text(tick), anchor="middle")
    yield line((left, bottom), (right, bottom), "axis")
    yield text(right, bottom + 37, x.label, anchor="end", class_="label")
    yield text(4, 13, y.label, class_="label")


def _spaced(axis: Axis, width: float) -> list[float]:
    """Ticks whose labels do not touch: all, or every second, third, ..."""
    widest = max(len(axis.text(tick)) for tick in axis.ticks) * 7 + 12
    every = max(1, -(-int(widest * (len(axis.ticks) - 1)) // int(width)))
    return list(axis.ticks[::every])


def _line(each: Line, box: tuple[float, float, float, float], x: Axis, y: Axis) -> Iterator[Markup]:
    left, top, right, bottom = box
    points = [(x.at(a, left, right), y.at(b, bottom, top)) for a, b in each.points]
    if each.joined and points:
        yield polyline(points, f"curve {style(each.series)}{' muted' if each.muted else ''}")
    if each.marked and len(points) <= MAX_MARKS:
        yield from (marker(point, each.series, shape=each.shape) for point in points)
    if each.label and points:
        yield _label(each.label, points[-1], left, right)


def _label(label: str, at: Point, left: float, right: float) -> Markup:
    """Beside the point, on the side that has more room."""
    if at[0] < (left + right) / 2:
        return text(at[0] + 8, at[1] + 4, fitted(label, right - at[0] - 8), class_="note")
    return text(at[0] - 8, at[1] - 6, fitted(label, at[0] - left - 8), anchor="end", class_="note")
