"""Horizontal bars, whole or in segments, with marks beside or on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perceiver_deploy.api.reporting.charts.axes import Axis
from perceiver_deploy.api.reporting.charts.svg import NARROW, fitted, line, marker, style, tag, text

ROW, BAR, BOTTOM, DODGE, MARK = 32.0, 14.0, 40.0, 7.5, 3.4
"""Height of a row, of its bar and of the axis below; between marks, which would hide one another, and their size."""


@dataclass(frozen=True)
class Bar:
    """One row: segments end to end as (length, series), marks and a line as values, and what is written behind."""

    label: str
    segments: tuple[tuple[float, int], ...]
    note: str = ""
    marks: tuple[tuple[float, int], ...] = ()
    line: float | None = None


def bars(width: float, rows: Sequence[Bar], axis: Axis, *, note_width: float = 70.0) -> tuple[float, list[Markup]]:
    """Height and parts of a chart of this width; on a narrow one, labels are above their bars."""
    narrow = width <= NARROW
    left = 12.0 if narrow else 12.0 + max((len(row.label) for row in rows), default=0) * 7.0
    left = min(left, width * 0.32)
    right, step = width - note_width, ROW + (14.0 if narrow else 0.0)
    bottom = 6.0 + step * len(rows)
    return bottom + BOTTOM, [
        *_axis(axis, left, right, bottom),
        *(part for i, row in enumerate(rows) for part in _row(row, axis, left, right, 6.0 + i * step, narrow)),
    ]


def _axis(axis: Axis, left: float, right: float, bottom: float) -> Iterator[Markup]:
    every = 2 if (right - left) < 60 * len(axis.ticks) else 1
    for tick in axis.ticks[::every]:
        at = axis.at(tick, left, right)
        yield line((at, 4), (at, bottom), "grid")
        yield text(at, bottom + 16, axis.text(tick), anchor="middle")
    yield line((left, 4), (left, bottom), "axis")
    yield text(right, bottom + 34, axis.label, anchor="end", class_="label")


def _row(row: Bar, axis: Axis, left: float, right: float, top: float, narrow: bool) -> Iterator[Markup]:
    base = top + (18.0 if narrow else (ROW - BAR) / 2)
    middle = base + BAR / 2
    label = fitted(row.label, right - left if narrow else left - 4)
    yield text(left + 3, top + 12, label) if narrow else text(left - 10, middle + 4, label, anchor="end")
    start, total = left, axis.low
    for length, series in row.segments:
        total += length
        end = axis.at(total, left, right)
        shown = max(end - start - 1.0, 0.5)
        yield tag("rect", x=start, y=base, width=shown, height=BAR, class_=f"bar {style(series)}")
        start = end
    if row.line is not None:
        start = axis.at(row.line, left, right)
        yield line((start, middle - 12), (start, middle + 12), "curve ref")
    marks = [(axis.at(value, left, right), series) for value, series in row.marks]
    spread = min(DODGE, 2 * DODGE / max(len(marks) - 1, 1))
    for i, (at, series) in enumerate(marks):
        yield marker((at, middle + spread * (i - (len(marks) - 1) / 2)), series, MARK)
    if row.note:
        yield text(max([start, *(at for at, _ in marks)]) + 9, middle + 4, row.note, class_="note")
