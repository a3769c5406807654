"""`perceiver-export bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table
from perceiver_deploy.cli.values import THREADS, backend_option

PERCENTILES = ("p50", "p90", "p95", "p99")


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Checkpoint the bundle was made from, if the zoo does not have it.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Rows per call.")
@click.option(
    "--iterations", default=50, show_default=True, type=click.IntRange(2, 1_000_000), help="Measured calls of each."
)
@click.option(
    "--warmup", default=5, show_default=True, type=click.IntRange(0, 1_000_000), help="Calls before the measured ones."
)
@click.option("--threads", type=THREADS, help="CPU threads of both (default: the session's choice).")
@backend_option("auto", "What runs the bundle.")
@click.option("--strict", is_flag=True, help="Exit 1 if other programs were busy meanwhile.")
@common_options
def command(
    bundle: Path,
    reference: str | None,
    batch: int,
    iterations: int,
    warmup: int,
    threads: int | None,
    backend: str,
    strict: bool,
    as_json: bool,
) -> None:
    """Measure the latency of BUNDLE beside PyTorch eager, call by call in turn."""
    from perceiver_deploy.api.bench import bench
    from perceiver_runtime.measure.load import require_idle

    report = bench(
        bundle,
        reference=reference,
        batch=batch,
        iterations=iterations,
        warmup=warmup,
        threads=threads,
        backend=backend,
    )
    require_idle(report.others, partial(click.echo, err=True), strict=strict)
    if as_json:
        return print_json(report)
    sides = {f"bundle ({report.backend}, {report.precision})": report.session, "PyTorch eager": report.eager}
    load = f"; {report.others}" if report.others else ""
    return print_table(
        f"{report.bundle}: milliseconds per call; batch {report.batch}, threads {report.threads}",
        ("what runs:<", *PERCENTILES),
        [(name, *(f"{getattr(times, p):.3f}" for p in PERCENTILES)) for name, times in sides.items()],
        f"{report.speedup:.2f}x PyTorch eager (95% interval {report.low:.2f} to {report.high:.2f}); "
        f"{report.backend}: {report.reason}{load}",
    )
