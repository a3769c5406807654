"""`perceiver-export tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table

if TYPE_CHECKING:
    from perceiver_runtime.format.tuning import Tuning


@click.command("tune")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--iterations", default=15, show_default=True, type=click.IntRange(2, 1_000_000), help="Measured calls of each."
)
@click.option(
    "--warmup", default=2, show_default=True, type=click.IntRange(0, 1_000_000), help="Calls before the measured ones."
)
@common_options
def command(bundle: Path, iterations: int, warmup: int, as_json: bool) -> None:
    """Measure which backend and how many threads run BUNDLE fastest on this machine, and record it beside BUNDLE."""
    from perceiver_deploy.api.tune import tune

    tuning = tune(bundle, iterations=iterations, warmup=warmup)
    if as_json:
        print_json(tuning)
    else:
        print_tuning(bundle, tuning)


def print_tuning(bundle: Path, tuning: Tuning) -> None:
    """The settings, fastest first."""
    from perceiver_runtime.format.tuning import tuning_path

    print_table(
        f"{bundle}, batch 1; recorded in {tuning_path(bundle)}",
        ("setting:<", "ms", "time / fastest", "95% interval"),
        [
            (
                f"{m.backend}, threads {m.threads}",
                f"{m.milliseconds:.3f}",
                f"{m.ratio:.2f}",
                f"{m.low:.2f} to {m.high:.2f}",
            )
            for m in tuning.measured
        ],
        tuning.machine,
    )
