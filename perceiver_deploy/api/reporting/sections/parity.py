"""Parity with the golden samples, and the error over the repetitions of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from perceiver_deploy.api.reporting.charts.axes import linear_axis, log_axis
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.charts.plots import Line, plot
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport, Run
from perceiver_deploy.api.reporting.sections.section import Block, Folded, Section, Text, not_measured, split
from perceiver_deploy.api.reporting.tables import Cell, Table, table, verdict
from perceiver_exporters.diagnose.error_growth import ErrorGrowth
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_runtime.benchmark.report import NotMeasured
from perceiver_runtime.measure.verify import VerifyReport

VERDICTS = ("bundle:<", "samples", "tensors", "worst:<", "of its tolerance", "verdict:<")
PARITY = ("component:<", "tensor:<", "rel L2", "tolerance", "of it", "max abs", "cosine", "verdict:<")
PROOF = ("component:<", "products with a weight", "all products", "kernels:<")
"""Shares of the FLOPs of matrix products that are in the precision."""


def parity(model: ModelReport) -> Section:
    """A row for each bundle on each backend; below, folded, one for each tensor, and the proof of precision."""
    found = [(bundle, run) for bundle in model.bundles for run in _by_backend(bundle)]
    compared = [(b, r.parity) for b, r in found if not isinstance(r.parity, NotMeasured)]
    lacking = [(f"{b.name} on {r.backend}", r.parity) for b, r in found if isinstance(r.parity, NotMeasured)]
    broken = [Text(f"{b.name}: {breach}", missing=True) for b in model.bundles for breach in b.breaches]
    proofs, unproven = split([(bundle, bundle.precisions) for bundle in model.bundles])
    proof = [row for bundle, entries in proofs for row in _proof(bundle, entries)]
    tensors = [row for bundle, report in compared for row in _tensors(bundle, report)]
    blocks: list[Block] = []
    if compared:
        blocks.append(table(VERDICTS, (_verdict(bundle, report) for bundle, report in compared)))
        blocks.append(Folded("All tensors", table(PARITY, tensors)))
    if proof:
        blocks.append(Folded("Precision of the graphs: shares of the FLOPs of matrix products", table(PROOF, proof)))
    note = (
        "Every component on the reference's inputs, then the whole pipeline on its own values. A tolerance is a fixed "
        "margin times the noise of the precision; above 100% of it a tensor fails."
    )
    blocks += [*broken, *not_measured(lacking), *unproven]
    return Section("parity", "Parity", note, tuple(blocks), model.commands["parity"])


def _by_backend(bundle: BundleReport) -> Iterable[Run]:
    """One run on each backend: a comparison does not depend on the batch that is timed."""
    return {run.backend: run for run in bundle.runs}.values()


def _verdict(bundle: BundleReport, report: VerifyReport) -> tuple[Cell | str, ...]:
    worst = max(report.reports, key=lambda r: (not r.passed, r.excess))
    return (
        Cell(bundle.name, _where(report)),
        f"{report.samples:,}",
        f"{len(report.reports):,}",
        Cell(f"{worst.component}: {worst.tensor}", worst.mode),
        f"{worst.excess:.0%}",
        verdict("passed" if report.passed and not bundle.breaches else "failed"),
    )


def _where(report: VerifyReport) -> str:
    return report.runs_on.backend if report.runs_on is not None else ""


def _tensors(bundle: BundleReport, report: VerifyReport) -> Iterator[tuple[Cell | str, ...] | str]:
    yield f"{bundle.name} on {_where(report)}"
    for r in report.reports:
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
