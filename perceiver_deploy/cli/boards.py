"""`perceiver-export boards`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table

if TYPE_CHECKING:
    from perceiver_deploy.boards.results import BoardResult

REACHED = ("what ran:<", "ms", "forecast ms", "of peak", "of bandwidth", "verdict:<")
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where results are kept (default: perceiver-deploy/boards.jsonl in the user's data directory).",
)


@click.group("boards")
def command() -> None:
    """Results of boards: import reports of `perceiver-run selftest`, and list them."""


@command.command("import")
@click.argument("report", type=click.Path(path_type=Path))
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="The bundle that was copied to the board: adds its forecast."
)
@store_option
@common_options
def import_report(report: Path, bundle: Path | None, store: Path | None, as_json: bool) -> None:
    """Check REPORT, put it beside the forecast for its board, and keep it.

    A report whose hashes or figures contradict each other is refused, and nothing is kept.
    """
    from perceiver_deploy.boards.results import COLUMNS, add_result, read_result, rows, store_path
    from perceiver_runtime.cli.table import markdown
    from perceiver_runtime.format.outputs import check_entry

    kept = store or store_path()
    check_entry(kept, f".{kept.name}")
    result = read_result(report, bundle)
    add_result(kept, result)
    if as_json:
        return print_json(result)
    _show(result)
    echo(f"\nRow for docs/jetson.md:\n\n{markdown(COLUMNS, rows([result]))}\n\nkept in {kept}")
    return None


@command.command("list")
@store_option
@common_options
def list_results(store: Path | None, as_json: bool) -> None:
    """List what was imported."""
    from perceiver_deploy.boards.results import COLUMNS, read_results, rows, store_path

    kept = store or store_path()
    found = read_results(kept)
    if as_json:
        return print_json(found)
    if not found:
        echo(f"no results in {kept}; perceiver-export boards import adds them")
        return None
    return print_table(f"{kept}: results of boards", COLUMNS, rows(found), _assumed())


def _show(result: BoardResult) -> None:
    title = f"{result.board or result.device}, {result.model} in {result.precision}, batch {result.batch}"
    if result.comparison is None:
        echo(f"{title}: {result.p50:.3g} ms p50, measured only: {result.reason}")
        return
    shown = [
        (
            each.name,
            f"{each.measured_ms:.3g}",
            f"{each.optimistic_ms:.3g} to {each.pessimistic_ms:.3g}",
            f"{each.compute:.1%}",
            f"{each.bandwidth:.1%}",
            each.verdict,
        )
        for each in (*result.comparison.components, result.comparison.run)
    ]
    print_table(f"{title}: measured, beside the forecast", REACHED, shown, _assumed())


def _assumed() -> str:
    from perceiver_exporters.roofline.forecast import OPTIMISTIC, PESSIMISTIC

    return (
        f"Forecasts assume {PESSIMISTIC.compute:.0%} to {OPTIMISTIC.compute:.0%} of the peak and "
        f"{PESSIMISTIC.memory:.0%} to {OPTIMISTIC.memory:.0%} of the bandwidth. Reached shares of the bandwidth count "
        "weights, inputs and outputs alone: they are lower bounds."
    )
