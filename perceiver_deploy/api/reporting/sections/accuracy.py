"""Task metrics by precision, and F1 by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perceiver_deploy.api.evaluate import EvaluationReport
from perceiver_deploy.api.reporting.charts.axes import linear_axis
from perceiver_deploy.api.reporting.charts.bars import Bar, bars
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.charts.svg import REFERENCE
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport
from perceiver_deploy.api.reporting.sections.section import Section, split
from perceiver_deploy.api.reporting.tables import Cell, signed, table

MAX_CLASSES = 24
"""Classes that are shown: where there are more, those whose F1 differs most from the reference's."""
Scored = Sequence[tuple[BundleReport, EvaluationReport[Any]]]


def accuracy(model: ModelReport, key: str) -> Section:
    """Metrics of each output beside the reference's, and F1 of its classes."""
    found, lacking = split([(bundle, bundle.accuracy) for bundle in model.bundles])
    outputs = dict.fromkeys(report.output for _, reports in found for report in reports)
    blocks: list[Any] = []
    for i, output in enumerate(outputs):
        scored = [(b, r) for b, reports in found for r in reports if r.output == output]
        blocks.append(table(_columns(scored), _rows(scored)))
        if hasattr(scored[0][1].reference, "per_class"):
            blocks.append(_classes(model, f"{key}-f1-{i}", scored))
    note = "The bundle's metrics beside those of the PyTorch reference, on the same samples."
    return Section("accuracy", "Accuracy", note, (*blocks, *lacking), model.commands["accuracy"])


def _columns(scored: Scored) -> tuple[str, ...]:
    return ("metric:<", "reference", *(bundle.name for bundle, _ in scored))


def _rows(scored: Scored) -> Iterator[tuple[Cell | str, ...] | str]:
    first = scored[0][1]
    kind = "held-out samples" if first.held_out else "samples, some of which may have calibrated the bundle,"
    yield f"{first.output}, {first.samples:,} {kind} of {first.dataset}"
    for name in first.difference:
        cells = [Cell(f"{_value(r.deployed, name):.4f}", signed(r.difference[name], 4)) for _, r in scored]
        yield (name, f"{_value(first.reference, name):.4f}", *cells)
    if first.agreement is not None:
        yield ("same prediction", "", *(f"{r.agreement:.4f}" for _, r in scored))


def _value(metrics: Any, name: str) -> float:
    found: float = metrics.values[name] if hasattr(metrics, "values") else getattr(metrics, name)
    return found


def _classes(model: ModelReport, key: str, scored: Scored) -> Picture:
    series = {bundle.name: i for i, bundle in enumerate(model.bundles)}
    reference = scored[0][1].reference.per_class
    deployed = [[scores.f1 for scores in r.deployed.per_class] for _, r in scored]
    changed = [max(abs(own[i] - known.f1) for own in deployed) for i, known in enumerate(reference)]
    chosen = sorted(sorted(range(len(reference)), key=lambda i: -changed[i])[:MAX_CLASSES])
    chosen.sort(key=lambda i: -reference[i].f1)
    lowest = min(min(own[i] for own in deployed) for i in chosen)
    axis = linear_axis("F1", min(lowest, *(reference[i].f1 for i in chosen)) * 0.98, 1.0)
    drawn = [
        Bar(
            reference[i].label,
            (),
            f"{reference[i].f1:.3f}",
            tuple((own[i], series[b.name]) for own, (b, _) in zip(deployed, scored, strict=True)),
            reference[i].f1,
        )
        for i in chosen
    ]
    rows = [
        (
            reference[i].label,
            f"{reference[i].support:,}",
            f"{reference[i].f1:.4f}",
            *(Cell(f"{own[i]:.4f}", signed(own[i] - reference[i].f1, 4)) for own in deployed),
        )
        for i in chosen
    ]
    shown = (
        f", the {len(chosen)} of {len(reference):,} classes that changed most" if len(chosen) < len(reference) else ""
    )
    return picture(
        key,
        f"F1 by class{shown}",
        f"Best {drawn[0].label} {drawn[0].note}, worst {drawn[-1].label} {drawn[-1].note} of the reference; the "
        f"largest difference of a bundle is {max(changed):.4f}.",
        lambda width: bars(width, drawn, axis, note_width=64),
        table(("class:<", "samples", "reference", *(b.name for b, _ in scored)), rows),
        [*((series[bundle.name], bundle.name) for bundle, _ in scored), (REFERENCE, "reference")],
    )
