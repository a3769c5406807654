"""`perceiver-export demo`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table, progress, quiet_option

COLUMNS = (
    "precision:<",
    "component:<",
    "max abs",
    "rel L2",
    "cosine",
    "tolerance",
    "verdict:<",
    "p50 ms",
    "p95 ms",
    "x eager",
    "accuracy",
    "vs FP32 torch",
    "MB",
)


@click.command("demo")
@click.option("-o", "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where to write.")
@json_option
@quiet_option
def command(out: Path, as_json: bool, quiet: bool) -> int:
    """Export the shipped image classifier at every precision; verify, evaluate and time each bundle."""
    from perceiver_deploy.api.demo import SOURCE, run

    report = run(out, progress(quiet))
    if as_json:
        print_json(report)
        return 0 if report.passed else 1
    rows = [
        (
            row.precision,
            row.component,
            f"{row.max_abs:.1e}",
            f"{row.rel_l2:.1e}",
            f"{row.cosine:.6f}",
            f"{row.tolerance:.1e}",
            "held" if row.passed else "FAILED",
            f"{row.p50_ms:.3f}",
            f"{row.p95_ms:.3f}",
            f"{row.speedup:.2f}" if row.speedup else "",
            f"{row.accuracy:.2%}" if row.accuracy else "",
            f"{row.accuracy_difference:+.2f} points" if row.accuracy_difference is not None else "",
            f"{row.megabytes:.2f}",
        )
        for row in report.rows
    ]
    print_table(
        f"{SOURCE}: {report.parameters:,} parameters, {report.samples:,} held-out images, torch eager "
        f"{report.eager_p50_ms:.3f} ms, {report.machine}",
        COLUMNS,
        rows,
        caption=f"Bundles in {out}/. Accuracy of the PyTorch reference: {report.reference_accuracy:.2%}.",
    )
    return 0 if report.passed else 1
