"""`perceiver-export report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import MARKDOWN, common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import BACKEND, BATCHES, THREADS
from perceiver_runtime.errors import UsageError

if TYPE_CHECKING:
    from perceiver_deploy.api.reporting.data import ReportData


@click.command("report")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the page goes.",
)
@click.option("--backend", "backends", multiple=True, type=BACKEND, help="What runs them; repeat for more [auto].")
@click.option("--batch", default="1", show_default=True, type=BATCHES, help="Rows per run, as 1 or 1,4,16.")
@click.option(
    "--iterations", default=50, show_default=True, type=click.IntRange(2, 1_000_000), help="Measured runs of each."
)
@click.option(
    "--warmup", default=5, show_default=True, type=click.IntRange(0, 1_000_000), help="Runs before the measured ones."
)
@click.option("--threads", type=THREADS, help="CPU threads (default: the session's choice).")
@click.option("--reference", help="Model or checkpoint the bundles were made from, if not found by name.")
@click.option("--no-reference", is_flag=True, help="Leave the reference out: no accuracies, error curves, speed-ups.")
@click.option("--data", metavar="SOURCE", help="Labelled samples, as for export (default: the data of the export).")
@click.option("--samples", type=click.IntRange(1), help="Number of samples of other data than the export's [all].")
@click.option(
    "--bench",
    "measured",
    multiple=True,
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Output of perceiver-run bench --json on a device; repeat for more.",
)
@common_options
def command(
    bundles: tuple[Path, ...],
    out: Path,
    backends: tuple[str, ...],
    batch: tuple[int, ...],
    iterations: int,
    warmup: int,
    threads: int | None,
    reference: str | None,
    no_reference: bool,
    data: str | None,
    samples: int | None,
    measured: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Write one page about BUNDLES, of one or several models: how fast, how accurate, on which device.

    What can't be measured is said with its reason. Exit 1 if a check failed; the page is written all the same.
    """
    from perceiver_deploy.api.report import report

    if no_reference and reference is not None:
        raise UsageError("--reference and --no-reference: expected one of them, got both")
    made = report(
        bundles,
        out,
        backends=backends or ("auto",),
        batch=batch,
        iterations=iterations,
        warmup=warmup,
        threads=threads,
        reference=reference,
        with_reference=not no_reference,
        data=data,
        samples=samples,
        measured=measured,
    )
    return show(made, out, as_json)


def show(made: ReportData, page: Path, as_json: bool) -> int:
    """Print a report, and what failed; answer the exit code."""
    from perceiver_deploy.api.reporting.summary import plain_table, summary_table

    if as_json:
        print_json(made)
    else:
        found = (plain_table if click.get_current_context().meta.get(MARKDOWN) else summary_table)(made.summary)
        print_table(f"Written to {page}", found.columns, found.texts)
        for failure in made.failures:
            echo(f"FAILED: {failure}", err=True)
    return 0 if made.passed else 1
