"""`perceiver-export demo`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table

PARITY = ("precision:<", "component:<", "max abs:?", "rel L2", "tolerance", "cosine:?", "verdict:<", "MB")
SPEED = ("precision:<", "component:<", "p50 ms", "p95 ms", "x eager", "accuracy", "points")


@click.command("demo")
@click.option("-o", "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where to write.")
@common_options
def command(out: Path, as_json: bool) -> int:
    """Export the shipped image classifier at every precision; verify, evaluate and time each bundle."""
    from perceiver_deploy.api.demo import SOURCE, demo
    from perceiver_runtime.cli.report import verdict

    report = demo(out)
    if as_json:
        print_json(report)
        return 0 if report.passed else 1
    print_table(
        f"{SOURCE}: {report.parameters:,} parameters, {report.samples:,} held-out images; bundles in {out}/",
        PARITY,
        [
            (
                row.precision,
                row.component,
                f"{row.max_abs:.1e}",
                f"{row.rel_l2:.1e}",
                f"{row.tolerance:.1e}",
                f"{row.cosine:.6f}",
                verdict(row.passed),
                f"{row.megabytes:.2f}",
            )
            for row in report.rows
        ],
    )
    print_table(
        f"\nLatency beside PyTorch eager ({report.eager_p50_ms:.3f} ms), accuracy and its difference from that of "
        f"PyTorch ({report.reference_accuracy:.2%})",
        SPEED,
        [
            (
                row.precision,
                row.component,
                f"{row.p50_ms:.3f}",
                f"{row.p95_ms:.3f}",
                f"{row.speedup:.2f}" if row.speedup else "",
                f"{row.accuracy:.2%}" if row.accuracy else "",
                f"{row.accuracy_difference:+.2f}" if row.accuracy_difference is not None else "",
            )
            for row in report.rows
        ],
        report.machine,
    )
    return 0 if report.passed else 1
