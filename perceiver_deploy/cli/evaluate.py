"""`perceiver-export evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import POINTS, THREADS
from perceiver_runtime.errors import UsageError

if TYPE_CHECKING:
    from perceiver_deploy.api.evaluate import EvaluationReport

ROUNDING = 1e-9
"""Points: a difference of two shares is not exact."""
Reports = Sequence["EvaluationReport[Any]"]
"""One output's reports, in the order of the bundles."""


@click.command("evaluate")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reference", help="Model or checkpoint to compare with (default: the bundles' own source).")
@click.option("--data", metavar="SOURCE", help="Labelled samples, as for export (default: the data of the export).")
@click.option("--samples", type=click.IntRange(1), help="Number of samples of other data than the export's [all].")
@click.option("--metric", metavar="FILE.py:FUNCTION", help="Your own score of outputs against targets.")
@click.option(
    "--max-accuracy-drop", type=POINTS, help="Fail (exit 1) if an accuracy falls by more than this many points."
)
@click.option("--per-class", is_flag=True, help="Precision, recall and F1 of each class too.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Samples per call.")
@click.option("--threads", type=THREADS, help="CPU threads of all (default: PyTorch's choice).")
@common_options
def command(
    bundles: tuple[Path, ...],
    reference: str | None,
    data: str | None,
    samples: int | None,
    metric: str | None,
    max_accuracy_drop: float | None,
    per_class: bool,
    batch: int,
    threads: int | None,
    as_json: bool,
) -> int:
    """Measure task metrics on held-out data: those of the reference beside those of BUNDLES, all of one model."""
    from perceiver_deploy.api.evaluate import evaluate

    evaluated = evaluate(
        bundles, reference=reference, data=data, samples=samples, metric=metric, batch=batch, threads=threads
    )
    columns = ("output:<", "metric:<", "samples", "reference", *_titles(bundles, evaluated))
    rows = [row for reports in zip(*evaluated, strict=True) for row in _rows(reports, per_class)]
    if as_json:
        print_json([report for reports in evaluated for report in reports])
    else:
        runs = ", ".join(dict.fromkeys(str(reports[0].runs_on) for reports in evaluated))
        caption = "\n".join((f"Ran on {runs}.", *_shifts(bundles, evaluated)))
        first = evaluated[0][0]
        title = "Held-out samples of" if first.held_out else "Samples, some of which may have calibrated the bundle, of"
        print_table(f"{title} {first.dataset}", columns, rows, caption)
    return 0 if max_accuracy_drop is None else _judge(bundles, evaluated, max_accuracy_drop)


def _judge(bundles: Sequence[Path], evaluated: Sequence[Reports], max_accuracy_drop: float) -> int:
    """1 if a share, such as an accuracy, fell by more than so many points; says which."""
    scored = [(b, r) for b, reports in zip(bundles, evaluated, strict=True) for r in reports]
    drops = [(b, r, r.points_lost) for b, r in scored if r.points_lost is not None]
    if not drops:
        metrics = ", ".join(dict.fromkeys(name for _, r in scored for name in r.difference))
        raise UsageError(f"--max-accuracy-drop bounds an accuracy; this model is scored by {metrics}; leave it out")
    fallen = [(b, r, drop) for b, r, drop in drops if drop > max_accuracy_drop + ROUNDING]
    for bundle, r, drop in fallen:
        echo(
            f"FAILED: {bundle}: {r.share} of {r.output}: reference {value(r.reference, r.share):.4f}, deployed "
            f"{value(r.deployed, r.share):.4f}: {drop:.2f} points lost, {max_accuracy_drop:g} allowed",
            err=True,
        )
    return 1 if fallen else 0


def value(metrics: Any, name: str) -> float:
    """A number of a result."""
    found: float = metrics.values[name] if hasattr(metrics, "values") else getattr(metrics, name)
    return found


def _shifts(bundles: Sequence[Path], evaluated: Sequence[Reports]) -> Iterator[str]:
    for bundle, reports in zip(bundles, evaluated, strict=True):
        if shares := ", ".join(f"{s.component} {s.share:.3%}" for s in reports[0].range_shift):
            yield f"Activations outside the calibrated ranges of {bundle.name}: {shares}."


def _titles(bundles: Sequence[Path], evaluated: Sequence[Reports]) -> list[str]:
    """Their precisions, or their names where two have the same."""
    precisions = [reports[0].precision for reports in evaluated]
    return precisions if len(set(precisions)) == len(precisions) else [bundle.name for bundle in bundles]


def _rows(reports: Reports, per_class: bool) -> Iterator[tuple[str, ...]]:
    first = reports[0]
    samples = f"{first.samples:,}"
    for name in first.difference:
        cells = [f"{value(r.deployed, name):.4f} ({r.difference[name]:+.4f})" for r in reports]
        yield (first.output, name, samples, f"{value(first.reference, name):.4f}", *cells)
    if first.agreement is None:
        return
    yield (first.output, "same prediction", samples, "", *(f"{r.agreement:.4f}" for r in reports))
    if per_class:
        yield from _class_rows(reports, samples)


def _class_rows(reports: Reports, samples: str) -> Iterator[tuple[str, ...]]:
    for known, *deployed in zip(reports[0].reference.per_class, *(r.deployed.per_class for r in reports), strict=True):
        for metric in ("precision", "recall", "f1"):
            values = [getattr(scores, metric) for scores in deployed]
            reference = getattr(known, metric)
            cells = [f"{value:.4f} ({value - reference:+.4f})" for value in values]
            yield (reports[0].output, f"{metric} of {known.label}", samples, f"{reference:.4f}", *cells)
