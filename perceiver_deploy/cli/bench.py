"""`perceiver-export bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.numbers import ROUNDS, THREADS
from perceiver_deploy.cli.output import json_option, print_json, print_table, progress, quiet_option

if TYPE_CHECKING:
    from perceiver_deploy.api.benchmark import BenchmarkReport


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Checkpoint the bundle was made from, if the zoo does not have it.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Rows per call.")
@click.option("--rounds", default=50, show_default=True, type=ROUNDS, help="Interleaved timings of each.")
@click.option("--threads", type=THREADS, help="Threads for both (default: the session's choice).")
@click.option("--backend", default="auto", show_default=True, help="What runs the bundle.")
@click.option("--strict", is_flag=True, help="Exit 1 if other programs were busy meanwhile.")
@json_option
@quiet_option
def command(
    bundle: Path,
    reference: str | None,
    batch: int,
    rounds: int,
    threads: int | None,
    backend: str,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Time BUNDLE beside PyTorch eager, call by call in turn."""
    from perceiver_deploy.api.benchmark import benchmark
    from perceiver_runtime.measure.load import require_idle

    progress(quiet)(f"time {bundle} and torch eager, {rounds} rounds in turn")
    report = benchmark(bundle, reference=reference, batch=batch, rounds=rounds, threads=threads, backend=backend)
    require_idle(report.others, partial(click.echo, err=True), strict=strict)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: BenchmarkReport) -> None:
    columns = ("milliseconds per call:<", "p50", "p90", "p95", "p99")
    rows = [
        (name, *(f"{getattr(times, p):.3f}" for p in ("p50", "p90", "p95", "p99")))
        for name, times in (
            (f"bundle ({report.backend}, {report.precision})", report.session),
            ("torch eager", report.eager),
        )
    ]
    caption = f"{report.speedup:.2f}x torch eager (95% interval {report.low:.2f} to {report.high:.2f})"
    caption += f"; {report.backend}: {report.reason}"
    if report.others:
        caption += f"; {report.others}"
    print_table(f"{report.bundle}, batch {report.batch}, {report.threads} threads", columns, rows, caption)
