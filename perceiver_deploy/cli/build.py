"""`perceiver-export build`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import ENGINE_TARGET, Size
from perceiver_runtime.progress import report


@click.command("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", required=True, type=ENGINE_TARGET, help="What the engines are for.")
@click.option("--kit", type=click.Path(path_type=Path), help="Where a build kit goes, if the device must build.")
@click.option("--workspace", type=Size(), help="Most scratch memory of TensorRT, as 512MB (default: as estimated).")
@click.option("--memory", type=Size(), help="Memory of the board, as 8GB, where the target has several.")
@click.option("--overwrite", is_flag=True, help="Replace an existing kit.")
@common_options
def command(
    bundle: Path,
    target: str,
    kit: Path | None,
    workspace: int | None,
    memory: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Add TensorRT engines for a target to BUNDLE, or make a kit that builds them on the device."""
    from perceiver_exporters.engines import build
    from perceiver_runtime.cli.report import engine_table

    outcome = build(
        bundle,
        target,
        kit=kit,
        workspace=workspace,
        memory=memory,
        overwrite=overwrite,
    )
    if as_json:
        return print_json({**vars(outcome), "kit": str(outcome.kit) if outcome.kit else None})
    for finding in outcome.preflight.findings:
        report(f"{finding.check} {finding.verdict}: {finding.component} {finding.message}; {finding.remedy}")
    if outcome.kit is not None:
        return echo(f"{outcome.reason}\nbuild kit: {outcome.kit}\ncopy it to the device and run there: ./build.sh")
    return print_table(f"{bundle}: engines for {target}", *engine_table(outcome.engines))
