"""`perceiver-export verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import json_option, print_table

if TYPE_CHECKING:
    from perceiver_deploy.api.verify import Verification
    from perceiver_runtime.measure.compare import ParityReport

COLUMNS = (
    "component:<",
    "tensor:<",
    "fed by:<",
    "max abs",
    "rel L2",
    "cosine",
    "tolerance",
    "centred",
    "tolerance",
    "verdict:<",
)
FAILURES = Path("perceiver-failures")
"""Where the inputs of what failed are written, below the current directory, unless another place is named."""


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", help="Backend to run the bundle on (default: the one that computes as its target does).")
@click.option("--failures", type=click.Path(path_type=Path), help=f"Where inputs go that fail [{FAILURES}/BUNDLE].")
@json_option
def command(bundle: Path, backend: str | None, failures: Path | None, as_json: bool) -> int:
    """Compare BUNDLE with its golden samples, each component on reference inputs and then the whole pipeline, and its
    graphs with what their labels claim. What fails is written out, with the command that replays it.
    """
    return check(bundle, backend, failures, as_json)


def check(bundle: Path, backend: str | None, failures: Path | None, as_json: bool) -> int:
    """Verify, print, and write out what failed; answer the exit code."""
    from perceiver_deploy.api.verify import verify_bundle, write_failures
    from perceiver_runtime.cli.report import records, to_json
    from perceiver_runtime.errors import typed
    from perceiver_runtime.escapes import command_line
    from perceiver_runtime.format.outputs import check_directory

    if failures is not None:
        check_directory(failures)
    verification = verify_bundle(bundle, backend)
    if as_json:
        parity = verification.parity
        click.echo(to_json(records([*parity.reports, *verification.breaches], parity.runs_on)))
    else:
        _print(bundle, verification)
    if verification.passed:
        return 0
    place = failures or default_directory(bundle)
    try:
        check_directory(place)
        for failure in write_failures(bundle, verification, place):
            click.echo(f"{failure.component}: inputs written; replay them: {failure.command}", err=True)
    except Exception as error:  # the verdict stands, and is printed already
        if (known := typed(error)) is None:
            raise
        click.echo(f"inputs not written: {known}; name another place with --failures", err=True)
    click.echo(f"find the node: {command_line('perceiver-export', 'bisect', bundle)}", err=True)
    return 1


def default_directory(bundle: Path) -> Path:
    """A place below the current directory that bears the bundle's name."""
    return FAILURES / bundle.resolve().name


def print_parity(title: str, reports: tuple[ParityReport, ...]) -> None:
    """One row for each tensor and mode."""
    from perceiver_runtime.cli.report import centred_cells

    rows = [
        (
            r.component,
            r.tensor,
            r.mode,
            f"{r.max_abs:.2e}",
            f"{r.rel_l2:.2e}",
            f"{r.cosine:.6f}",
            f"{r.tolerance:.2e}",
            *centred_cells(r),
            "held" if r.passed else "FAILED",
        )
        for r in reports
    ]
    print_table(title, COLUMNS, rows)


def _print(bundle: Path, verification: Verification) -> None:
    from perceiver_runtime.cli.report import golden_line

    title = f"Parity of {bundle}: {golden_line(verification.parity)}; on {verification.parity.runs_on}"
    print_parity(title, verification.parity.reports)
    for breach in verification.breaches:
        click.echo(f"FAILED: {breach}")
