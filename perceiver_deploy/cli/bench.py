"""`perceiver-export bench`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table, progress, quiet_option


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Checkpoint the bundle was made from, if the zoo does not have it.")
@click.option("--batch", default=1, show_default=True, help="Rows per call.")
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(2), help="Interleaved timings of each.")
@click.option("--threads", type=click.IntRange(1), help="Threads for both (default: torch's choice).")
@click.option("--backend", default="auto", show_default=True, help="What runs the bundle.")
@json_option
@quiet_option
def command(
    bundle: Path,
    reference: str | None,
    batch: int,
    rounds: int,
    threads: int | None,
    backend: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Time BUNDLE beside PyTorch eager, call by call in turn."""
    from perceiver_deploy.benchmarking import benchmark

    progress(quiet)(f"time {bundle} and torch eager, {rounds} rounds in turn")
    report = benchmark(bundle, reference=reference, batch=batch, rounds=rounds, threads=threads, backend=backend)
    if as_json:
        return print_json(report)
    columns = ("milliseconds per call:<", "p50", "p90", "p95", "p99")
    rows = [
        (name, *(f"{getattr(times, p):.3f}" for p in ("p50", "p90", "p95", "p99")))
        for name, times in (
            (f"bundle ({report.backend}, {report.precision})", report.session),
            ("torch eager", report.eager),
        )
    ]
    caption = f"{report.speedup:.2f}x torch eager (95% interval {report.low:.2f} to {report.high:.2f})"
    return print_table(f"{bundle}, batch {report.batch}, {report.threads} threads", columns, rows, caption)
