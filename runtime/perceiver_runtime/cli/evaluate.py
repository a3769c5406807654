"""`perceiver-run evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer
from perceiver_runtime.cli.table import wrapped
from perceiver_runtime.conditions import conditions_of
from perceiver_runtime.evaluation.evaluate import Evaluation, evaluate
from perceiver_runtime.execution.session import Session

COLUMNS = ("output:<", "metric:<", "samples", "value")


def add_command(
    commands: Any, device: argparse.ArgumentParser, opened: Callable[..., Session], tell: Callable[[str], None]
) -> None:
    """Add the command to a parser's subcommands; `opened` opens the session of its options, `tell` prints a note."""
    parser = commands.add_parser("evaluate", parents=[device], help="measure task metrics on labelled samples")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE.npz",
        help="samples: arrays by input, and targets by output, or as targets/NAME where an input has that name",
    )
    parser.add_argument("--batch", type=integer(1), default=64, help="samples per run (default: 64)")
    parser.set_defaults(command=lambda options: _evaluate(options, opened, tell))


def _evaluate(options: argparse.Namespace, opened: Callable[..., Session], tell: Callable[[str], None]) -> int:
    with opened(options, check_finite=True) as session:
        found = evaluate(session, options.data, batch=options.batch)
        runs_on, made_with, conditions = session.runs_on, session.manifest.data, conditions_of(session)
    if made_with is not None and made_with.name == options.data.name:
        tell(f"note: {made_with.name} is what the bundle was made with: some of its samples calibrated it")
    if options.json:
        print(report.to_json(report.records(found, runs_on, conditions)))
    else:
        print(f"{options.draw(COLUMNS, list(_rows(found)))}\n{wrapped(f'ran on {runs_on}')}")
    return 0


def _rows(found: Sequence[Evaluation]) -> Iterator[tuple[str, ...]]:
    for each in found:
        for name, value in values(each.metrics).items():
            yield each.output, name, f"{each.samples:,}", f"{value:.4f}"


def values(metrics: Any) -> dict[str, float]:
    """The numbers of a result that are measured, by name."""
    fields = {field.name: getattr(metrics, field.name) for field in dataclasses.fields(metrics)}
    return {name: value for name, value in fields.items() if isinstance(value, float)}
