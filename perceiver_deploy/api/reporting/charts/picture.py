"""What a chart is: two drawings of the same, a legend, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perceiver_deploy.api.reporting.charts.svg import NARROW, WIDE, Swatch, drawing, swatch
from perceiver_deploy.api.reporting.tables import Table


@dataclass(frozen=True)
class Picture:
    """A chart; `table` is its text alternative."""

    title: str
    description: str
    wide: Markup
    narrow: Markup
    table: Table
    legend: tuple[tuple[Markup, str], ...] = ()


Draw = Callable[[float], tuple[float, Iterable[Markup]]]
"""From a width to the height and the parts of a drawing."""


def picture(
    key: str,
    title: str,
    description: str,
    draw: Draw,
    table: Table,
    legend: Sequence[tuple[int, str] | tuple[int, str, Swatch]] = (),
) -> Picture:
    """Draw for both widths.

    `key` is unique on the page. The legend has the number and the name of each series, and what is shown of it: its
    line with its mark, unless it says otherwise.
    """
    made = {}
    for width, suffix in ((WIDE, "w"), (NARROW, "n")):
        height, parts = draw(width)
        made[width] = drawing(width, height, parts, title=title, description=description, key=f"{key}-{suffix}")
    swatches = tuple((swatch(series, *kind), name) for series, name, *kind in legend)
    return Picture(title, description, made[WIDE], made[NARROW], table, swatches)
