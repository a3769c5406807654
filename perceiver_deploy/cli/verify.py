"""`perceiver-export verify`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import THREADS, backend_option

FAILURES = Path("perceiver-failures")
"""Where the inputs of what failed are written, below the current directory, unless another place is named."""


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(None, "What runs the bundle (default: the backend that computes as the bundle's target does).")
@click.option("--threads", type=THREADS, help="CPU threads (default: the session's choice).")
@click.option("--failures", type=click.Path(path_type=Path), help=f"Where inputs go that fail [{FAILURES}/BUNDLE].")
@common_options
def command(bundle: Path, backend: str | None, threads: int | None, failures: Path | None, as_json: bool) -> int:
    """Compare BUNDLE with its golden samples, and its graphs with the precision that they claim.

    Each component runs on reference inputs, then the whole pipeline on its own. What fails is written out, with the
    command that replays it.
    """
    return check(bundle, backend, threads, failures, as_json)


def check(bundle: Path, backend: str | None, threads: int | None, failures: Path | None, as_json: bool) -> int:
    """Verify, print, and write out what failed; answer the exit code."""
    from perceiver_deploy.api.verify import verify, write_failures
    from perceiver_runtime.cli.report import golden_line, parity_rows, records
    from perceiver_runtime.errors import typed
    from perceiver_runtime.escapes import command_line
    from perceiver_runtime.format.outputs import check_directory

    if failures is not None:
        check_directory(failures)
    found = verify(bundle, backend, threads)
    if as_json:
        print_json(records([*found.reports, *found.breaches], found.runs_on, found.parity.conditions))
    else:
        title = f"Parity of {bundle}: {golden_line(found.parity)}; on {found.runs_on}"
        conditions = found.parity.conditions
        print_table(title, *parity_rows(found.reports), f"digest {conditions.digest}" if conditions else "")
        for breach in found.breaches:
            echo(f"FAILED: {breach}")
    if found.passed:
        return 0
    place = failures or default_directory(bundle)
    try:
        check_directory(place)
        for failure in write_failures(bundle, found, place):
            echo(f"{failure.component}: inputs written; replay them: {failure.command}", err=True)
    except Exception as error:  # the verdict stands, and is printed already
        if (known := typed(error)) is None:
            raise
        echo(f"inputs not written: {known}; name another place with --failures", err=True)
    echo(f"find the node: {command_line('perceiver-export', 'bisect', bundle)}", err=True)
    return 1


def default_directory(bundle: Path) -> Path:
    """A place below the current directory that bears the bundle's name."""
    return FAILURES / bundle.resolve().name
