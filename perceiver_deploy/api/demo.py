"""The demo: the shipped image classifier at three precisions, and a report about the bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perceiver_deploy.api.report import report as report_on
from perceiver_deploy.api.reporting.data import ReportData
from perceiver_deploy.api.reporting.page import write_page
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_runtime.format.outputs import check_directory
from perceiver_runtime.format.staging import check_destination
from perceiver_runtime.progress import report

SOURCE = "fashion-perceiver"
MAX_DROP_POINTS = {"fp32": 0.0, "fp16": 0.1, "int8": 1.0}
"""By precision: points of accuracy that a bundle may lose."""
THREADS = 1  # small models run fastest on one thread; both sides get the same
PAGE = "report.html"
ROUNDING = 1e-9


def demo(out: str | Path = "demo") -> ReportData:
    """Export the shipped image classifier at each precision; verify, evaluate and time the bundles.

    Args:
        out: Directory in which the bundles and the page `report.html` are written; those of an earlier demo are
            replaced.

    Returns:
        The report. `failures` has a bundle that lost more accuracy than its precision may, too.

    Raises:
        UsageError: `out` can't be a directory.
    """
    out = Path(out)
    check_directory(out)
    paths = {precision: out / f"{SOURCE}-{precision}" for precision in MAX_DROP_POINTS}
    for path in paths.values():
        check_destination(path, overwrite=True)
    made, traces = blueprint(resolve(SOURCE)), SharedTraces()
    for precision, path in paths.items():
        report(f"[{precision}] export")
        export_bundle(made, path, precision, overwrite=True, tracer=traces)
    found = report_on(list(paths.values()), threads=THREADS)
    lost = {row.bundle: (row.precision, -100 * (row.accuracy_difference or 0.0)) for row in found.summary if row.bundle}
    above = (
        f"{bundle}: {points:.2f} points of accuracy lost, {MAX_DROP_POINTS[precision]:g} allowed"
        for bundle, (precision, points) in lost.items()
        if points > MAX_DROP_POINTS[precision] + ROUNDING
    )
    judged = replace(found, failures=(*found.failures, *above))
    write_page(judged, out / PAGE)
    return judged
