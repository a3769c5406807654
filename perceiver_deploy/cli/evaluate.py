"""`perceiver-export evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table, progress, quiet_option


@click.command("evaluate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Model or checkpoint to compare with (default: the bundle's own source).")
@click.option("--max-drop", type=float, help="Fail (exit 1) if accuracy falls by more than this many points.")
@json_option
@quiet_option
def command(bundle: Path, reference: str | None, max_drop: float | None, as_json: bool, quiet: bool) -> int:
    """Measure BUNDLE's task metrics on held-out data beside the reference's."""
    from perceiver_deploy.evaluation import evaluate_bundle

    progress(quiet)(f"evaluate {bundle} and its reference on held-out data")
    report = evaluate_bundle(bundle, reference=reference)
    if as_json:
        print_json(report)
    else:
        print_table(
            f"{bundle} on {report.samples:,} held-out samples of {report.dataset}",
            ("metric:<", "reference", "deployed", "difference"),
            [
                (name, f"{getattr(report.reference, name):.4f}", f"{getattr(report.deployed, name):.4f}", f"{d:+.4f}")
                for name, d in report.difference.items()
            ],
            caption=f"{report.agreement:.2%} of the predictions agree",
        )
    drop = 100 * (report.reference.accuracy - report.deployed.accuracy)
    return 1 if max_drop is not None and drop > max_drop else 0
