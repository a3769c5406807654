"""Parity with the golden samples, and the error over the repetitions of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perceiver_deploy.api.reporting.charts.axes import linear_axis, log_axis
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.charts.plots import Line, plot
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport
from perceiver_deploy.api.reporting.sections.section import Section, Text, not_measured, split
from perceiver_deploy.api.reporting.tables import Cell, Table, table, verdict
from perceiver_exporters.diagnose.error_growth import ErrorGrowth
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_runtime.benchmark.report import NotMeasured

PARITY = (
    "component:<",
    "tensor:<",
    "rel L2",
    "tolerance",
    "of it",
    "max abs",
    "cosine",
    "verdict:<",
)


PROOF = ("component:<", "products with a weight", "all products", "kernels:<")
"""Shares of the FLOPs of matrix products that are in the precision."""


def parity(model: ModelReport) -> Section:
    """One row for each tensor of each bundle and backend."""
    rows = [row for bundle in model.bundles for row in _rows(bundle)]
    lacking = [(b.name, r.parity) for b in model.bundles for r in b.runs if isinstance(r.parity, NotMeasured)]
    broken = [Text(f"{b.name}: {breach}", missing=True) for b in model.bundles for breach in b.breaches]
    note = (
        "Every component on the reference's inputs, then the whole pipeline on its own values. A tolerance is a fixed "
        "margin times the noise of the precision; above 100% of it a tensor fails. The second table is the share of "
        "the FLOPs of matrix products that is in the bundle's precision."
    )
    proofs, unproven = split([(bundle, bundle.precisions) for bundle in model.bundles])
    proof = [row for bundle, entries in proofs for row in _proof(bundle, entries)]
    tables = (*((table(PARITY, rows),) if rows else ()), *((table(PROOF, proof),) if proof else ()))
    blocks = (tables, broken, not_measured(lacking), unproven)
    return Section("parity", "Parity", note, tuple(b for each in blocks for b in each), model.commands["parity"])


def _rows(bundle: BundleReport) -> Iterator[tuple[Cell | str, ...] | str]:
    for run in bundle.runs:
        if isinstance(run.parity, NotMeasured):
            continue
        where = run.parity.runs_on.backend if run.parity.runs_on else run.backend
        yield f"{bundle.name} on {where}, {run.parity.samples} golden samples"
        for r in run.parity.reports:
            yield (
                Cell(r.component, r.mode),
                r.tensor,
                f"{r.rel_l2:.1e}",
                f"{r.tolerance:.1e}",
                f"{r.excess:.0%}",
                f"{r.max_abs:.1e}",
                f"{r.cosine:.6f}",
                verdict("passed" if r.passed else "failed"),
            )


def _proof(bundle: BundleReport, entries: Sequence[ComponentPrecision]) -> Iterator[tuple[Cell | str, ...] | str]:
    """The precision that each graph computes in."""
    yield f"{bundle.name}, {bundle.precision}"
    for entry in entries:
        kept = f"{len(entry.kept)} layers kept in FP32" if entry.kept else ""
        kernels = entry.run_in(bundle.precision) or "engines"
        yield entry.component, f"{entry.weighted:.1%}", f"{entry.overall:.1%}", Cell(kernels, kept)


def growth(model: ModelReport, key: str) -> Section:
    """A chart for each value that is carried from one repetition to the next."""
    found, lacking = split([(bundle, bundle.growth) for bundle in model.bundles])
    values = dict.fromkeys((g.component, g.value, g.over) for _, growths in found for g in growths)
    series = {bundle.name: i for i, bundle in enumerate(model.bundles)}
    charts = [
        _chart(
            f"{key}-growth{i}", value, {b.name: g for b, growths in found for g in growths if _of(g) == value}, series
        )
        for i, value in enumerate(values)
    ]
    note = "Relative L2 error of the latents against FP64 after each repetition, on the golden samples."
    return Section("growth", "Error growth", note, (*charts, *lacking), model.commands["growth"])


def _of(each: ErrorGrowth) -> tuple[str, str, str]:
    return each.component, each.value, each.over


def _chart(key: str, value: tuple[str, str, str], curves: dict[str, ErrorGrowth], series: dict[str, int]) -> Picture:
    component, name, over = value
    points = [p for growth in curves.values() for p in growth.chained]
    x = linear_axis(f"{over} of {component}", 0, max(len(g.chained) for g in curves.values()) - 1, whole=True)
    y = log_axis("relative L2 error", points)
    lines = [Line(tuple(enumerate(growth.chained)), series[bundle]) for bundle, growth in curves.items()]
    return picture(
        key,
        f"Relative L2 error of {name} over the {over} of {component}",
        "; ".join(
            f"{b}: {g.chained[0]:.1e} before the first, {g.chained[-1]:.1e} at the end" for b, g in curves.items()
        ),
        lambda width: plot(width, lines, x, y),
        _table(over, curves),
        [(series[bundle], bundle) for bundle in curves],
    )


def _table(over: str, curves: dict[str, ErrorGrowth]) -> Table:
    longest = max(len(growth.chained) for growth in curves.values())
    columns = (over, *(f"{bundle}" for bundle in curves))
    rows = [
        (str(i), *(f"{g.chained[i]:.1e}" if i < len(g.chained) else "" for g in curves.values()))
        for i in range(longest)
    ]
    shares = "; ".join(f"{bundle} {growth.encoder_share:.0%}" for bundle, growth in curves.items())
    return table(columns, rows, f"Share of the final error that the encoder's own error causes: {shares}.")
