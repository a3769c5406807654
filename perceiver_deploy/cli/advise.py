"""`perceiver-export advise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import POINTS, PRECISION, TARGET, Finite, Size

if TYPE_CHECKING:
    from perceiver_deploy.api.advice.candidate import Candidate
    from perceiver_deploy.api.advise import Advice

COLUMNS = (
    "precision:<",
    "backend:<",
    "threads",
    "ms",
    "95% interval:?",
    "lost",
    "rel L2:?",
    "peak MB",
    "MB:?",
    "note:<",
)
FORECASTS = ("board:<", "precision:<", "forecast ms", "lost", "rel L2:?", "MB of memory", "MB:?", "note:<")


@click.command("advise")
@click.argument("source")
@click.option("--target", default="cpu", show_default=True, type=TARGET, help="Device family.")
@click.option("--data", metavar="SOURCE", help="Samples of your own, as for export; with labels, accuracy is measured.")
@click.option("--max-latency", type=Finite(0.0, min_open=True), metavar="MS", help="Largest median latency of a call.")
@click.option("--max-drop", type=POINTS, metavar="POINTS", help="Largest loss of accuracy.")
@click.option("--max-memory", type=Size(), metavar="SIZE", help="Largest peak memory, as 500MB; also sets chunk sizes.")
@click.option("--precision", "precisions", multiple=True, type=PRECISION, help="Try this one; repeat for more [all].")
@click.option("--board", "boards", multiple=True, metavar="NAME", help="Forecast for this board of the target [all].")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Rows per call.")
@click.option("--iterations", default=20, show_default=True, type=click.IntRange(5), help="Measured calls of each.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory that keeps the bundles [none].")
@common_options
def command(
    source: str,
    target: str,
    data: str | None,
    max_latency: float | None,
    max_drop: float | None,
    max_memory: int | None,
    precisions: tuple[str, ...],
    boards: tuple[str, ...],
    batch: int,
    iterations: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Export SOURCE at every precision, measure what runs it within your limits, and say how to make the best."""
    from perceiver_deploy.api.advise import advise

    advice = advise(
        source,
        max_latency=max_latency,
        max_drop=max_drop,
        precisions=precisions,
        boards=boards,
        batch=batch,
        rounds=iterations,
        keep=out,
        target=target,
        data=data,
        max_memory=max_memory,
    )
    if as_json:
        print_json(advice)
    else:
        _show(advice)
    return 0 if advice.chosen else 1


def _show(advice: Advice) -> None:
    """Measured candidates with their interval; of forecasts the range, which nothing hides."""
    rows = [_row(candidate, advice) for candidate in sorted(advice.candidates, key=lambda c: (c.device, c.latency_ms))]
    forecast = any(candidate.forecast for candidate in advice.candidates)
    what = (
        f"FORECAST latency and memory, accuracy measured on {advice.machine}"
        if forecast
        else f"measured on {advice.machine}"
    )
    print_table(
        f"{advice.source}: batch {advice.batch}, {what}; * = no other is better in latency, accuracy and memory",
        FORECASTS if forecast else COLUMNS,
        rows,
    )
    echo("\n" + ("\n".join(advice.commands) if advice.chosen else "FAILED: nothing is within the limits"))


def _row(c: Candidate, advice: Advice) -> Sequence[str]:
    exceeded = c.exceeds(advice.limits)
    note = "chosen" if c in advice.chosen else f"not: {', '.join(exceeded)}" if exceeded else ""
    interval = f"{c.low_ms:.3g} to {c.high_ms:.3g}"
    times = (c.device, c.precision, interval) if c.forecast else (c.precision, c.backend, str(c.threads or "-"))
    return (
        *times,
        *(() if c.forecast else (f"{c.latency_ms:.3g}", interval)),
        "-" if c.points_lost is None else f"{c.points_lost:.2f}",
        f"{c.relative_l2:.1e}",
        "-" if c.memory_bytes is None else f"{c.memory_bytes / 1e6:.0f}",
        f"{c.size_bytes / 1e6:.3g}",
        " ".join(filter(None, ("*" if c in advice.pareto else "", note))),
    )
