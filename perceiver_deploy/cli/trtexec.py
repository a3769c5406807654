"""`perceiver-export trtexec`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import ENGINE_TARGET

if TYPE_CHECKING:
    from perceiver_exporters.trtexec.results import TrtexecResult


@click.command("trtexec")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", type=ENGINE_TARGET, help="Whose TensorRT it is (default: the bundle's target).")
@click.option("--tensorrt", metavar="VERSION", help="Version of TensorRT, as 11.0 (default: the target's oldest).")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write a script and the input files to DIR.")
@click.option("--read", type=click.Path(path_type=Path), help="Show what the script of -o measured in DIR.")
@click.option(
    "--layers", type=click.Path(path_type=Path), help="With --read: DIR of `perceiver-run layers`, beside it."
)
@common_options
def command(
    bundle: Path,
    target: str | None,
    tensorrt: str | None,
    out: Path | None,
    read: Path | None,
    layers: Path | None,
    as_json: bool,
) -> None:
    """Print the trtexec commands that build and time the components of BUNDLE, or show what they measured."""
    from perceiver_exporters.trtexec.commands import trtexec_commands, write_trtexec
    from perceiver_exporters.trtexec.results import read_trtexec

    if read is not None and (target or tensorrt or out):
        raise click.UsageError("--read shows results; leave out --target, --tensorrt and -o")
    if layers is not None and read is None:
        raise click.UsageError("--layers goes with --read DIR")
    if read is not None:
        results = read_trtexec(read, layers)
        return print_json(results) if as_json else _print_results(bundle, results)
    commands = trtexec_commands(bundle, target, tensorrt)
    script = write_trtexec(commands, out) if out else None
    if as_json:
        shown = {each.component: each.shell("trtexec", shlex.quote(str(bundle))) for each in commands}
        return print_json({"commands": shown, "script": str(script) if script else None})
    if script is not None:
        return echo(f"{script}: copy its folder and the bundle to the device; there: {script.name} BUNDLE")
    for each in commands:
        echo(each.shell("trtexec", shlex.quote(str(bundle))))
    return None


def _print_results(bundle: Path, results: tuple[TrtexecResult, ...]) -> None:
    columns = ("component:<", "trtexec ms", "p99", "layers ms", "our layers ms", "layers")
    rows = [
        (
            each.component,
            _shown(each.times.compute if each.times else None),
            _shown(each.times.compute_p99 if each.times else None),
            _shown(each.profile.milliseconds if each.profile else None),
            _shown(each.ours.milliseconds if each.ours else None),
            "not measured" if each.layers is None else str(len(each.layers)),
        )
        for each in results
    ]
    caption = "Milliseconds of one call of each component. Layers are timed one by one: their sum is more than a call."
    print_table(f"{bundle}: trtexec", columns, rows, caption)


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
