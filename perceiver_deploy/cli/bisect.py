"""`perceiver-export bisect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import backend_option
from perceiver_deploy.cli.verify import default_directory

if TYPE_CHECKING:
    from perceiver_deploy.api.bisect import Bisection
    from perceiver_exporters.diagnose.bisection import Diagnosis

COLUMNS = ("component:<", "node:<", "operator:<", "run", "error", "noise:?", "bound")


@click.command("bisect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Model of the zoo or checkpoint that the bundle was made from, if not found by name.")
@click.option("--data", metavar="SOURCE", help="Data that the bundle was calibrated with, if not found by name.")
@backend_option(None, "What runs the bundle (default: the backend that computes as the bundle's target does).")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), help="Where replays go [perceiver-failures/BUNDLE/nodes]."
)
@common_options
def command(
    bundle: Path, reference: str | None, data: str | None, backend: str | None, out: Path | None, as_json: bool
) -> int:
    """Find the component of BUNDLE, then the node, that departs from the model it was made from; exit 1 if one does.

    The golden samples blame the component. The model is exported again, and the graphs compared value by value and
    node by node. For each departure a replay is written: the part of the graph, its inputs, and the expected outputs.
    """
    from perceiver_deploy.api.bisect import bisect
    from perceiver_runtime.format.outputs import check_directory

    if out is not None:
        check_directory(out)
    replays = out or default_directory(bundle) / "nodes"
    found = bisect(bundle, reference=reference, data=data, backend=backend, replays=replays)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0 if found.passed else 1


def _print(found: Bisection) -> None:
    from perceiver_runtime.escapes import command_line

    if found.passed:
        echo(f"{found.bundle}: nothing departs ({found.compared} values compared; source: {found.source})")
        return
    print_table(
        f"{found.bundle} departs (source: {found.source})", COLUMNS, [_row(diagnosis) for diagnosis in found.diagnoses]
    )
    for diagnosis in found.diagnoses:
        echo(f"{diagnosis.component}: {diagnosis.why}")
        if diagnosis.replay:
            echo(f"  replay it: {command_line('perceiver-export', 'replay', Path(diagnosis.replay))}")


def _row(diagnosis: Diagnosis) -> tuple[str, ...]:
    numbers = (diagnosis.error, diagnosis.noise, diagnosis.bound) if diagnosis.bound else ()
    shown = [f"{number:.1e}" for number in numbers] or ["", "", ""]
    return diagnosis.component, diagnosis.node or f"({diagnosis.kind})", diagnosis.op_type, str(diagnosis.call), *shown
