"""`perceiver-export replay`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table


@click.command("replay")
@click.argument("directory", type=click.Path(path_type=Path))
@common_options
def command(directory: Path, as_json: bool) -> int:
    """Run what `verify` or `bisect` wrote to DIRECTORY again, and compare; exit 1 while it departs."""
    from perceiver_exporters.diagnose.bisection.replay import read_replay, run_replay
    from perceiver_runtime.cli.report import parity_rows

    reports = run_replay(directory)
    if as_json:
        print_json(reports)
    else:
        replay = read_replay(directory)
        print_table(f"{replay.node or 'component'} of {replay.bundle}, replayed", *parity_rows(reports))
    return 0 if all(report.passed for report in reports) else 1
