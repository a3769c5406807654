"""`perceiver-export bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import BATCHES, PEER, THREADS, Finite, backend_option

if TYPE_CHECKING:
    from perceiver_deploy.api.bench import BenchmarkReport
    from perceiver_deploy.api.history import Change

PERCENTILES = ("p50", "p90", "p95", "p99")
HISTORY = "perceiver-bench.jsonl"
NONE = "none"
COLUMNS = ("what runs:<", "precision:<?", "batch", *PERCENTILES, "rows/s")
SPEEDUPS = ("bundle:<", "batch", "beside:<", "times faster", "95% interval")
CHANGES = ("bundle:<", "batch", "earlier ms", "now ms", "change", "95% interval", "noise", "verdict:<")


@click.command("bench")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--against",
    multiple=True,
    default=("torch",),
    show_default=True,
    type=PEER,
    help=f"What else runs the model, in FP32; repeat for more. One of {', '.join(PEER.names)}.",
)
@click.option("--reference", help="Checkpoint the bundles were made from, if the zoo does not have it.")
@click.option("--batch", default="1", show_default=True, type=BATCHES, help="Rows per call, as 1 or 1,4,16.")
@click.option(
    "--iterations", default=50, show_default=True, type=click.IntRange(2, 1_000_000), help="Measured calls of each."
)
@click.option(
    "--duration",
    type=Finite(0.0, min_open=True),
    metavar="SECONDS",
    help="Measure for so long, in place of --iterations.",
)
@click.option(
    "--warmup", default=5, show_default=True, type=click.IntRange(0, 1_000_000), help="Calls before the measured ones."
)
@click.option("--threads", type=THREADS, help="CPU threads of all (default: the sessions' choice).")
@backend_option("auto", "What runs the bundles.")
@click.option(
    "--save",
    is_flag=False,
    flag_value=HISTORY,
    type=click.Path(path_type=Path),
    metavar="[FILE]",
    help=f"Append the results to a history [{HISTORY}].",
)
@click.option(
    "--compare",
    is_flag=False,
    flag_value=HISTORY,
    type=click.Path(path_type=Path),
    metavar="[FILE]",
    help=f"Compare with earlier results of a history [{HISTORY}]; exit 1 if a bundle became slower.",
)
@click.option("--strict", is_flag=True, help="Exit 1 if other programs were busy meanwhile.")
@common_options
def command(
    bundles: tuple[Path, ...],
    against: tuple[str, ...],
    reference: str | None,
    batch: tuple[int, ...],
    iterations: int,
    duration: float | None,
    warmup: int,
    threads: int | None,
    backend: str,
    save: Path | None,
    compare: Path | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Measure the latency of BUNDLES of one model beside PyTorch eager or others, call by call in turn."""
    from perceiver_deploy.api.bench import bench
    from perceiver_deploy.api.history import append, changes, read
    from perceiver_runtime.benchmark.load import require_idle
    from perceiver_runtime.format.outputs import check_file

    if NONE in against and len(against) > 1:
        raise click.UsageError("--against none goes with no other; leave one of them out")
    earlier = read(compare) if compare is not None else ()
    if save is not None:
        check_file(save)
    reports = bench(
        bundles,
        against=[name for name in against if name != NONE],
        reference=reference,
        batch=batch,
        iterations=iterations,
        duration=duration,
        warmup=warmup,
        threads=threads,
        backend=backend,
    )
    found = changes(reports, earlier)
    if save is not None:
        append(save, reports)
    require_idle(reports[0].others, partial(echo, err=True), strict=strict)
    if as_json:
        print_json(reports if compare is None else {"results": reports, "changes": found})
        return _code(found)
    used = ", ".join(dict.fromkeys(str(report.threads) for report in reports))
    print_table(f"{', '.join(map(str, bundles))}: milliseconds per call, threads {used}", COLUMNS, list(_rows(reports)))
    first = reports[0]
    load = f"; {first.others}" if first.others else ""
    print_table(
        "\nRatios of calls next to each other, median over the rounds",
        SPEEDUPS,
        list(_speedups(reports)),
        f"{first.backend}: {first.reason}{load}",
    )
    if found:
        print_table(f"\nBeside the latest results in {compare}", CHANGES, [_change(each) for each in found])
    return _code(found)


def _code(found: Sequence[Change]) -> int:
    return 1 if any(change.verdict == "slower" for change in found) else 0


def _rows(reports: Sequence[BenchmarkReport]) -> Iterator[tuple[str, ...]]:
    from perceiver_deploy.peers import PEERS

    batches = dict.fromkeys(report.batch for report in reports)
    for batch in batches:
        same = [report for report in reports if report.batch == batch]
        timed = [(f"{Path(r.bundle).name} ({r.backend})", r.precision, r.session) for r in same]
        timed += [(PEERS[peer].title, "fp32", times) for peer, times in same[0].peers.items()]
        for name, precision, times in timed:
            numbers = (f"{getattr(times, percentile):.3f}" for percentile in PERCENTILES)
            yield (name, precision, str(batch), *numbers, f"{1e3 * batch / times.p50:.4g}")


def _speedups(reports: Sequence[BenchmarkReport]) -> Iterator[tuple[str, ...]]:
    """Each bundle beside peers, and beside the bundles before it."""
    from perceiver_deploy.peers import PEERS

    seen: set[tuple[str, int]] = set()
    for r in reports:
        seen.add((r.bundle, r.batch))
        for other, ratio in r.speedups.items():
            if other in PEERS or (other, r.batch) in seen:
                title = PEERS[other].title if other in PEERS else Path(other).name
                interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
                yield Path(r.bundle).name, str(r.batch), title, f"{ratio.median:.2f}", interval


def _change(change: Change) -> tuple[str, ...]:
    return (
        change.bundle,
        str(change.batch),
        f"{change.earlier_ms:.3f}",
        f"{change.now_ms:.3f}",
        f"{100 * (change.ratio.median - 1):+.1f}%",
        f"{100 * (change.ratio.low - 1):+.1f} to {100 * (change.ratio.high - 1):+.1f}%",
        f"{100 * change.noise:.1f}%",
        change.verdict,
    )
