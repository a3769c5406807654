"""Results as text: plain tables for people, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.escapes import printable
from perceiver_runtime.execution.choice import RunsOn, expected
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.latency import Distribution, LatencyReport
from perceiver_runtime.measure.verify import VerifyReport, golden_origin
from perceiver_runtime.tensors import Array, TensorSpec

CENTRED = ("centred", "tolerance")
"""Columns of a parity table: the error relative to the spread of the golden rows, and its bound."""


def to_json(value: Any) -> str:
    """A frozen result, or a sequence of them, as JSON; NaN and infinity, which JSON lacks, as null."""
    return strict_json.dumps(strict_json.without_nonfinite(schema.encode(value)))


def records(results: Sequence[Any], runs_on: RunsOn | None) -> list[dict[str, Any]]:
    """Results for JSON, each with what it ran on."""
    return [{**schema.encode(result), "runs_on": schema.encode(runs_on)} for result in results]


def describe(manifest: Manifest) -> str:
    """What a bundle is, in a few lines."""
    source, pipeline = manifest.source, manifest.pipeline
    trained = "pretrained" if source.pretrained else "not pretrained"
    head = f"{source.name} ({source.family}, {trained}), {manifest.precision} for {manifest.target}\n"
    specs = [f"input   {s}{_range(s)}{_default(pipeline.defaults, s.name)}" for s in pipeline.inputs]
    specs += [f"output  {s}" for s in pipeline.outputs]
    ranges = [
        f"profile {p.name}: " + ", ".join(f"{s} {r.min} to {r.max}" for s, r in p.dimensions.items())
        for p in manifest.profiles
    ]
    runs = Counter({component.name: 0 for component in manifest.components})
    for step in pipeline.steps:
        runs[step.component] += step.repeat
    rows = [
        (c.name, c.precision, f"{c.parameters:,}", f"{c.flops / 1e9:.3f}", str(runs[c.name]))
        for c in manifest.components
    ]
    lines = (printable(line) for line in (head, *specs, *ranges, f"golden  {golden_origin(manifest)}"))
    return "\n".join((*lines, "", table(("component", "type", "parameters", "GFLOP", "runs"), rows)))


def overview(bundle: Bundle) -> dict[str, Any]:
    """For JSON: the manifest, with the bundle's engines and what `auto` takes here."""
    more = {"engines": _engines(bundle), "runs_on": expected(bundle)}
    return {**schema.encode(bundle.manifest), **schema.encode(more)}


def running(bundle: Bundle) -> str:
    """The bundle's engines and what `auto` takes here, in lines."""
    lines = (*(f"engines {each}" for each in _engines(bundle)), f"auto    {expected(bundle)}")
    return "\n".join(map(printable, lines))


def _engines(bundle: Bundle) -> tuple[Any, ...]:
    if not any(path.startswith("engines/") for path in bundle.manifest.files):
        return ()
    from perceiver_runtime.tensorrt.summary import engines_of  # other commands must not wait for these modules

    return engines_of(bundle)


def parity_table(result: VerifyReport) -> str:
    """One row for each tensor and mode, and the verdict."""
    columns = ("component", "tensor", "fed by", "max abs", "rel L2", "cosine", "tolerance", *CENTRED, "verdict")
    verdict = "passed" if result.passed else "FAILED"
    return f"{table(columns, [_parity_row(r) for r in result.reports])}\n{golden_line(result)}: {verdict}"


def golden_line(result: VerifyReport) -> str:
    """How many golden samples were compared, and where they came from."""
    return printable(f"{result.samples} golden sample{'s' if result.samples > 1 else ''}, {result.origin}")


def latency_table(latency: LatencyReport) -> str:
    """Milliseconds of the whole, of each component, and of what lies between."""
    parts = {"total": latency.total, **latency.components, "overhead": latency.overhead}
    rows = [(name, *_milliseconds(distribution)) for name, distribution in parts.items()]
    runs_on = RunsOn(latency.backend, latency.threads, latency.reason)
    conditions = f"batch {latency.batch}, {latency.runs} runs, {runs_on}; {latency.machine}"
    load = f"; {latency.others}" if latency.others else ""
    return f"{table(('ms', 'p50', 'p90', 'p95', 'p99', 'mean'), rows)}\n{conditions}{load}"


def array_table(arrays: Mapping[str, Array], path: Path) -> str:
    """What was written."""
    rows = [(name, array.dtype.name, str(list(array.shape))) for name, array in arrays.items()]
    return f"{table(('output', 'type', 'shape'), rows)}\nwritten to {path}"


def centred_cells(report: ParityReport) -> tuple[str, str]:
    """The centred error and its tolerance: `-` where golden rows do not vary, or nothing bounds it."""
    cells = (report.centred, report.centred_tolerance)
    return "-" if cells[0] is None else f"{cells[0]:.2e}", "-" if cells[1] is None else f"{cells[1]:.2e}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart: the first to the left, all others to the right."""
    rows = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (columns, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def _parity_row(report: ParityReport) -> tuple[str, ...]:
    numbers = f"{report.max_abs:.2e}", f"{report.rel_l2:.2e}", f"{report.cosine:.6f}", f"{report.tolerance:.2e}"
    verdict = "held" if report.passed else "FAILED"
    return report.component, report.tensor, report.mode, *numbers, *centred_cells(report), verdict


def _milliseconds(d: Distribution) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (d.p50, d.p90, d.p95, d.p99, d.mean))


def _range(spec: TensorSpec) -> str:
    return f", {spec.range}" if spec.range else ""


def _default(defaults: Mapping[str, float], name: str) -> str:
    return f" = {defaults[name]:g} if not given" if name in defaults else ""
