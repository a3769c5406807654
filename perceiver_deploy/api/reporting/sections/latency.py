"""Latency: distributions from raw samples, and the share of each component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from perceiver_deploy.api.bench import TORCH
from perceiver_deploy.api.reporting.charts.axes import linear_axis, log_axis
from perceiver_deploy.api.reporting.charts.bars import Bar, bars
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.charts.plots import Line, plot
from perceiver_deploy.api.reporting.charts.svg import REFERENCE
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport, Run
from perceiver_deploy.api.reporting.sections.section import Section, not_measured
from perceiver_deploy.api.reporting.summary import EAGER
from perceiver_deploy.api.reporting.tables import short, table
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.benchmark.statistics import Distribution

PERCENTILES = ("p50", "p90", "p95", "p99", "mean")
MAX_POINTS = 400
"""Of a drawn distribution; of more samples, so many quantiles are drawn."""
LOG_FROM = 4.0
"""Times the smallest sample: where the largest is beyond, the axis is logarithmic."""


def latency(model: ModelReport, key: str) -> Section:
    """Distributions of all runs beside the reference's, and of the components."""
    named = {name: (i, run) for i, (name, run) in enumerate(runs_by_name(model))}
    times = {name: (i, each) for name, (i, run) in named.items() if (each := end_to_end(run)) is not None}
    times |= {name: (REFERENCE, each) for name, each in _eager(model).items()}
    parts = {n: r.latency for n, (_, r) in named.items() if not isinstance(r.latency, NotMeasured)}
    lacking = [(n, e) for n, (_, r) in named.items() for e in (r.latency, r.against) if isinstance(e, NotMeasured)]
    charts = (
        *((_distributions(f"{key}-latency", times),) if times else ()),
        *((_components(f"{key}-parts", model, parts),) if parts else ()),
    )
    note = (
        "Arrays in host memory to arrays in host memory. Each curve is the share of runs that took at most so long; "
        "bundles and PyTorch eager were timed call by call in turn."
    )
    return Section("latency", "Latency", note, (*charts, *not_measured(lacking)), model.commands["latency"])


def runs_by_name(model: ModelReport) -> Iterator[tuple[str, Run]]:
    """Runs by their bundle's name, and by their backend too where there are several."""
    for bundle in model.bundles:
        for run in bundle.runs:
            yield _name(bundle, run), run


def _name(bundle: BundleReport, run: Run) -> str:
    backends, batches = ({getattr(r, name) for r in bundle.runs} for name in ("backend", "batch"))
    more = (run.backend if len(backends) > 1 else "", f"batch {run.batch}" if len(batches) > 1 else "")
    return ", ".join(filter(None, (bundle.name, *more)))


def _eager(model: ModelReport) -> dict[str, Distribution]:
    """PyTorch eager at each batch size."""
    runs = [run for bundle in model.bundles for run in bundle.runs]
    found = {
        r.batch: r.against.peers[TORCH]
        for r in reversed(runs)
        if not isinstance(r.against, NotMeasured) and TORCH in r.against.peers
    }
    return {EAGER if len(found) == 1 else f"{EAGER}, batch {batch}": times for batch, times in sorted(found.items())}


def end_to_end(run: Run) -> Distribution | None:
    """Times of whole runs: those beside the reference, if there are any."""
    if not isinstance(run.against, NotMeasured):
        return run.against.session
    return None if isinstance(run.latency, NotMeasured) else run.latency.total


def _distributions(key: str, times: Mapping[str, tuple[int, Distribution]]) -> Picture:
    lines = [Line(_steps(each.samples), series, marked=False) for series, each in times.values()]
    marks = [Line(((each.p50, 50.0), (each.p95, 95.0)), series, joined=False) for series, each in times.values()]
    values = [x for line in lines for x, _ in line.points]
    wide = max(values) > LOG_FROM * min(values)
    label = "milliseconds per run, marks at p50 and p95"
    x = log_axis(label, values) if wide else linear_axis(label, min(values), max(values))
    y = linear_axis("share of runs", 0, 100, unit="%")
    return picture(
        key,
        "Distribution of the latency",
        "; ".join(f"{name}: median {short(t.p50)} ms, 95% within {short(t.p95)} ms" for name, (_, t) in times.items()),
        lambda width: plot(width, [*lines, *marks], x, y),
        table(("milliseconds:<", *PERCENTILES), ((name, *_percentiles(t)) for name, (_, t) in times.items())),
        [(series, name) for name, (series, _) in times.items()],
    )


def _steps(samples: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The cumulative distribution as steps of points."""
    ordered = np.sort(samples)
    if len(ordered) > MAX_POINTS:
        ordered = np.quantile(ordered, np.linspace(0, 1, MAX_POINTS))
    shares = 100.0 * np.arange(1, len(ordered) + 1) / len(ordered)
    points = [(float(ordered[0]), 0.0)]
    for value, share in zip(ordered.tolist(), shares.tolist(), strict=True):
        points += [(value, points[-1][1]), (value, share)]
    return tuple(points)


def _components(key: str, model: ModelReport, parts: Mapping[str, LatencyReport]) -> Picture:
    names = list(dict.fromkeys(name for each in parts.values() for name in each.components))
    rows = [
        Bar(run, tuple((t.p50, names.index(n)) for n, t in each.components.items()), f"{short(each.total.p50)} ms")
        for run, each in parts.items()
    ]
    axis = linear_axis("milliseconds, medians", 0, max(sum(length for length, _ in row.segments) for row in rows))
    cells = [
        (run, n, *_percentiles(t))
        for run, each in parts.items()
        for n, t in (("total", each.total), *each.components.items(), ("overhead", each.overhead))
    ]
    return picture(
        key,
        "Time of each component",
        "; ".join(
            f"{run}: " + ", ".join(f"{name} {short(t.p50)} ms" for name, t in each.components.items())
            for run, each in parts.items()
        ),
        lambda width: bars(width, rows, axis),
        table(
            ("bundle:<", "milliseconds:<", *PERCENTILES),
            cells,
            "Overhead: checks, copies and calls between components.",
        ),
        [(i, name, "block") for i, name in enumerate(names)],
    )


def _percentiles(times: Distribution) -> tuple[str, ...]:
    return tuple(short(getattr(times, name)) if getattr(times, name) > 0 else "0" for name in PERCENTILES)
