"""What each component achieves of what this machine allows, and forecasts for boards, apart from what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from perceiver_deploy.api.reporting.charts.axes import log_axis
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.charts.plots import Line, plot
from perceiver_deploy.api.reporting.charts.svg import REFERENCE
from perceiver_deploy.api.reporting.data import ModelReport
from perceiver_deploy.api.reporting.sections.latency import runs_by_name
from perceiver_deploy.api.reporting.sections.section import Section, not_measured, split
from perceiver_deploy.api.reporting.tables import NONE, Cell, megabytes, short, table
from perceiver_exporters.roofline.ceilings import Ceilings
from perceiver_exporters.roofline.forecast import Forecast
from perceiver_exporters.roofline.points import Roofline
from perceiver_runtime.benchmark.report import NotMeasured

GIGA = 1e9
POINTS = ("component:<", "FLOP/byte", "GFLOP/s", "GB/s", "of the ceiling", "bound by:<")
CLOSE = 1.5
"""Ratio of two rates whose names would touch."""
MARGIN = 2.5
"""Times the smallest and the largest intensity, which the horizontal axis reaches beyond."""


def roofline(model: ModelReport, key: str) -> Section:
    """A chart for each backend and number of threads whose ceilings were measured."""
    named = {name: (i, run.roofline) for i, (name, run) in enumerate(runs_by_name(model))}
    lacking = [(name, each) for name, (_, each) in named.items() if isinstance(each, NotMeasured)]
    charts: dict[str, dict[str, tuple[int, Roofline]]] = {}
    for name, (series, each) in named.items():
        if not isinstance(each, NotMeasured):
            charts.setdefault(each.ceilings.source, {})[name] = series, each
    drawn = [_chart(f"{key}-roofline{i}", source, each) for i, (source, each) in enumerate(charts.items())]
    note = (
        "Each mark is a component: its FLOPs for each byte that it moves, and the FLOPs that it reached in a second. "
        "Lines are what this machine allows: memory on the slope, matrix products above it. Bytes inside a graph are "
        "not counted, so that a share is never stated too high."
    )
    return Section("roofline", "Roofline", note, (*drawn, *not_measured(lacking)), model.commands["roofline"])


def _chart(key: str, source: str, runs: Mapping[str, tuple[int, Roofline]]) -> Picture:
    ceilings = max((each.ceilings for _, each in runs.values()), key=lambda c: len(c.flops_per_s))
    points = [(p.intensity, p.achieved / GIGA) for _, each in runs.values() for p in each.points if p.flops]
    low, high = min(x for x, _ in points) / MARGIN, max(x for x, _ in points) * MARGIN
    x = log_axis("FLOP per byte", (low, high))
    roofs = list(_roofs(ceilings, x.low, x.high))
    y = log_axis("GFLOP/s", [*(y for _, y in points), *(y for roof in roofs for _, y in roof.points)])
    parts = list(dict.fromkeys(p.component for _, each in runs.values() for p in each.points if p.flops))
    marks = [
        Line(((p.intensity, p.achieved / GIGA),), series, joined=False, shape=parts.index(p.component))
        for series, each in runs.values()
        for p in each.points
        if p.flops
    ]
    rows = [row for name, (_, each) in runs.items() for row in _rows(name, each)]
    return picture(
        key,
        "Roofline",
        "; ".join(
            f"{name}: "
            + ", ".join(f"{p.component} {p.share:.0%} of its ceiling, bound by {p.bound}" for p in each.points)
            for name, (_, each) in runs.items()
        ),
        lambda width: plot(width, [*roofs, *marks], x, y),
        table(POINTS, rows, f"Ceilings {source}: {_rates(ceilings)}."),
        [*((n, name, "block") for name, (n, _) in runs.items()), *((i, name, "mark") for i, name in enumerate(parts))],
    )


def _roofs(ceilings: Ceilings, low: float, high: float) -> Iterator[Line]:
    """Of each type the slope of the memory and the flat rate of its products, named at the right end.

    Rates that are too close for names of their own share one.
    """
    slope = ceilings.bytes_per_s / GIGA
    rates = sorted(ceilings.flops_per_s.items(), key=lambda each: each[1])
    waiting: list[str] = []
    for (kind, rate), (_, following) in zip(rates, [*rates[1:], ("", math.inf)], strict=True):
        top, corner = rate / GIGA, rate / ceilings.bytes_per_s
        bend = ((corner, top),) if low < corner < high else ()
        ends = (low, min(slope * low, top)), (high, min(slope * high, top))
        waiting.append(f"{kind} {short(top)}")
        label = "" if following < CLOSE * rate else f"{', '.join(waiting)} GFLOP/s"
        waiting = waiting if not label else []
        yield Line((ends[0], *bend, ends[1]), REFERENCE, marked=False, label=label)


def _rows(name: str, found: Roofline) -> Iterator[tuple[Cell | str, ...] | str]:
    yield name
    for p in found.points:
        rates = (
            (f"{short(p.intensity)}", short(p.achieved / GIGA), short(p.achieved_bytes / GIGA))
            if p.flops
            else ("0",) * 3
        )
        yield p.component, *rates, f"{p.share:.0%}", p.bound


def _rates(ceilings: Ceilings) -> str:
    rates = [f"{kind} {short(rate / GIGA)} GFLOP/s" for kind, rate in ceilings.flops_per_s.items()]
    return ", ".join((*rates, f"memory {short(ceilings.bytes_per_s / GIGA)} GB/s"))


def forecast(model: ModelReport) -> Section:
    """A row for each board, with a column for each bundle in its own precision."""
    found, lacking = split([(bundle, bundle.forecasts) for bundle in model.bundles])
    own = {bundle.name: {f.board: f for f in each if f.precision == bundle.precision} for bundle, each in found}
    boards = dict.fromkeys(board for each in own.values() for board in each)
    rows: list[tuple[Cell | str, ...]] = [
        (board, *(_range(each.get(board)) for each in own.values())) for board in boards
    ]
    assumed = dict.fromkeys(text for each in own.values() for one in each.values() for text in one.assumptions)
    columns = ("board:<", *own)
    note = (
        "Milliseconds per run, computed from FLOPs, bytes and data sheets, for each bundle in its own precision. "
        "Nothing here was measured on these boards."
    )
    blocks = (
        (table(columns, ("forecast, milliseconds per run", *rows), f"Assumed: {'; '.join(assumed)}."),) if rows else ()
    )
    return Section("forecast", "Forecast for boards", note, (*blocks, *lacking), model.commands["forecast"])


def _range(each: Forecast | None) -> Cell:
    if each is None:
        return Cell(NONE)
    return Cell(
        f"{short(each.optimistic_s * 1e3)} to {short(each.pessimistic_s * 1e3)}",
        f"{megabytes(each.memory)} MB{'' if each.fits else ', does not fit'}",
    )
