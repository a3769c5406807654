"""`perceiver-export demo`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options
from perceiver_deploy.cli.report import show


@click.command("demo")
@click.option("-o", "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Where to write.")
@common_options
def command(out: Path, as_json: bool) -> int:
    """Export the shipped image classifier at three precisions; verify, evaluate and time the bundles in one report."""
    from perceiver_deploy.api.demo import PAGE, demo

    return show(demo(out), out / PAGE, as_json)
