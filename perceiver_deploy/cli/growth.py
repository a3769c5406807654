"""`perceiver-export growth`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table


@click.command("growth")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File for the curves: .svg, .png or .json.")
@click.option("--reference", help="Model of the zoo or checkpoint that the bundle was made from, if not found by name.")
@click.option("--backend", help="Backend to run the bundle on (default: the one that computes as its target does).")
@json_option
def command(bundle: Path, out: Path | None, reference: str | None, backend: str | None, as_json: bool) -> None:
    """Measure how the error of BUNDLE grows with each run of a repeated block, or each layer of one that runs once."""
    from perceiver_deploy.api.growth import bundle_growth, check_output, write_growth

    if out is not None:
        check_output(out)
    report = bundle_growth(bundle, reference=reference, backend=backend)
    if out is not None:
        write_growth(report, out)
    if as_json:
        return print_json(report)
    for growth in report.growth:
        own = ("", *(f"{point:.2e}" for point in growth.teacher_forced))
        points = zip(growth.chained, growth.amplified, own, strict=True)
        print_table(
            f"Relative L2 error of {growth.value} over the {growth.over} of {growth.component}, {report.precision}",
            (growth.over, "chained", "encoder's, exact block", "one, on exact input"),
            [(str(i), f"{chained:.2e}", f"{grown:.2e}", alone) for i, (chained, grown, alone) in enumerate(points)],
            f"the encoder's error makes {growth.encoder_share:.0%} of what there is at the end",
        )
    return None
