"""`perceiver-export build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.numbers import GIGABYTES, MEBIBYTES
from perceiver_deploy.cli.output import json_option, print_json, print_table, progress, quiet_option

if TYPE_CHECKING:
    from perceiver_runtime.tensorrt.builder.progress import BuildProgress

MEGABYTE = 1 << 20
GIGABYTE = 10**9


@click.command("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="jetson-orin, jetson-thor, rtx or hopper.")
@click.option("--kit", type=click.Path(path_type=Path), help="Where a build kit goes, if the device must build.")
@click.option("--workspace", type=MEBIBYTES, help="Bound of TensorRT's scratch memory, in MiB (default: as estimated).")
@click.option("--memory", type=GIGABYTES, help="Memory of the board in GB, where the target has several.")
@click.option("--overwrite", is_flag=True, help="Replace an existing kit.")
@json_option
@quiet_option
def command(
    bundle: Path,
    target: str,
    kit: Path | None,
    workspace: int | None,
    memory: float | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Add TensorRT engines for a target to BUNDLE, or make a kit that builds them on the device."""
    from perceiver_exporters.engines import build

    say = progress(quiet)

    def report(component: str, step: BuildProgress) -> None:
        if step.depth == 0 and step.step == step.steps:
            say(f"{component}: {step.phase}")

    outcome = build(
        bundle,
        target,
        kit=kit,
        workspace=None if workspace is None else workspace * MEGABYTE,
        memory=None if memory is None else int(memory * GIGABYTE),
        overwrite=overwrite,
        report=report,
    )
    if as_json:
        print_json({**vars(outcome), "kit": str(outcome.kit) if outcome.kit else None})
        return 0
    for finding in outcome.preflight.findings:
        say(f"{finding.check} {finding.verdict}: {finding.component} {finding.message}; {finding.remedy}")
    if outcome.kit is not None:
        click.echo(f"{outcome.reason}\nbuild kit: {outcome.kit}\ncopy it to the device and run there: ./build.sh")
        return 0
    print_table(
        f"{bundle}: engines for {target}",
        ("component:<", "seconds", "MB", "layers", "matrix products:<"),
        [
            (
                r.component,
                f"{r.seconds:.1f}",
                f"{r.engine_bytes / 1e6:.2f}",
                str(r.layers),
                ", ".join(f"{n} {kind}" for kind, n in r.products.items()),
            )
            for r in outcome.engines
        ],
    )
    return 0
