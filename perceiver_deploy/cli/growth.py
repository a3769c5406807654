"""`perceiver-export growth`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table
from perceiver_deploy.cli.values import backend_option


@click.command("growth")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File for the curves: .svg, .png or .json.")
@click.option("--reference", help="Model of the zoo or checkpoint that the bundle was made from, if not found by name.")
@backend_option(None, "What runs the bundle (default: the backend that computes as the bundle's target does).")
@common_options
def command(bundle: Path, out: Path | None, reference: str | None, backend: str | None, as_json: bool) -> None:
    """Measure how the error of BUNDLE grows with each run of a repeated block, or each layer of one that runs once."""
    from perceiver_deploy.api.growth import check_output, growth, write_growth

    if out is not None:
        check_output(out)
    report = growth(bundle, reference=reference, backend=backend)
    if out is not None:
        write_growth(report, out)
    if as_json:
        return print_json(report)
    for each in report.growth:
        own = ("", *(f"{point:.1e}" for point in each.teacher_forced))
        points = zip(each.chained, each.amplified, own, strict=True)
        print_table(
            f"Relative L2 error of {each.value} over the {each.over} of {each.component}, {report.precision}",
            (each.over, "chained", "encoder's, exact block", "one, on exact input"),
            [(str(i), f"{chained:.1e}", f"{grown:.1e}", alone) for i, (chained, grown, alone) in enumerate(points)],
            f"The encoder's error is {each.encoder_share:.0%} of the error at the end.",
        )
    return None
