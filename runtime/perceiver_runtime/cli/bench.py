"""`perceiver-run bench`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from perceiver_runtime.benchmark.latency import MAX_CALLERS, measure, sized_feeds
from perceiver_runtime.benchmark.load import require_idle
from perceiver_runtime.benchmark.loops import MAX_RUNS
from perceiver_runtime.benchmark.report import Energy, LatencyReport, OpenLoopReport
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.benchmark.trace import Trace
from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer, integers, number
from perceiver_runtime.cli.table import Draw, wrapped
from perceiver_runtime.escapes import printable
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.execution.lanes import MAX_CALLERS as MAX_LANES
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.outputs import check_file
from perceiver_runtime.golden import load_golden

PERCENTILES = ("p50", "p90", "p95", "p99", "max")
MAX_SECONDS, MAX_RATE = 86_400, 1_000_000
NOTHING = "not measured"


def add_command(
    commands: Any, device: argparse.ArgumentParser, opened: Callable[..., Session], tell: Callable[[str], None]
) -> None:
    """Add the command to a parser's subcommands; `opened` opens the session of its options, `tell` prints a note."""
    parser = commands.add_parser("bench", parents=[device], help="measure latency, throughput, memory and energy")
    add = parser.add_argument
    batches = "rows per run, or several numbers: 1,4,16 (default: 1)"
    add("--batch", type=integers(1), default=(1,), metavar="N,...", help=batches)
    add(
        "--warmup",
        type=integer(0),
        help="runs before the measured ones (default: until times are stable, 30 s at most)",
    )
    add(
        "--iterations",
        type=integer(1, MAX_RUNS),
        help="least number of measured runs (default: 100; 1 with --duration)",
    )
    add(
        "--duration",
        type=number(0.01, MAX_SECONDS),
        default=0.0,
        metavar="SECONDS",
        help=f"shortest duration of each series of runs, of which there are {MAX_RUNS:,} at most",
    )
    add(
        "--concurrency",
        type=integers(1, MAX_CALLERS),
        default=(),
        metavar="N,...",
        help="measure as many concurrent callers of one session too, which is opened with a lane for each: 1,2,4",
    )
    add(
        "--rate",
        type=number(0.001, MAX_RATE),
        metavar="REQUESTS_PER_S",
        help="measure requests that arrive at this rate too, from their scheduled arrival to the answer",
    )
    add("--power", action="store_true", help="measure energy too: a Jetson's rails, NVML, or RAPL as root")
    add("--trace", type=Path, metavar="FILE.json", help="write a Chrome trace of the runs, which Perfetto opens")
    add("--strict", action="store_true", help="exit 1 if other programs were busy meanwhile")
    parser.set_defaults(command=lambda options: _bench(options, opened, tell))


def _bench(options: argparse.Namespace, opened: Callable[..., Session], tell: Callable[[str], None]) -> int:
    if options.trace is not None:
        check_file(options.trace)
    trace = Trace() if options.trace is not None else None
    # Each caller has a turn of its own, on a GPU a stream and contexts over the shared engines: none waits for a lane.
    callers = min(max(options.concurrency, default=1), MAX_LANES)
    with opened(options, callers=callers if callers > 1 else None) as session:
        feeds = load_golden(session.bundle)[0].feeds
        for batch in options.batch:
            sized_feeds(session, feeds, batch)
        found = [
            measure(
                session,
                feeds,
                batch,
                options.warmup,
                options.iterations,
                duration=options.duration,
                callers=options.concurrency,
                rate=options.rate,
                power=options.power,
                trace=trace,
            )
            for batch in options.batch
        ]
    for each in found:
        require_idle(each.others, tell, strict=options.strict)
    if trace is not None:
        trace.write(options.trace, {"conditions": found[0].conditions})
        tell(f"trace written to {printable(str(options.trace))}; open it in https://ui.perfetto.dev")
    if options.json:
        print(report.to_json(found[0] if len(found) == 1 else found))
    else:
        print("\n\n".join(text(each, options.draw) for each in found))
    return 0


def text(latency: LatencyReport, draw: Draw) -> str:
    """Tables of the times, and lines with what they were measured with."""
    parts = {"total": latency.total, **latency.components, "overhead": latency.overhead}
    blocks = [_table("ms:<", parts, draw, mean=True)]
    if latency.callers:
        rows = [(str(c.callers), f"{c.throughput:.4g}", *_percentiles(c.latency)) for c in latency.callers]
        blocks.append(draw(("callers", "rows/s", *PERCENTILES), rows))
    if latency.open_loop is not None:
        loop = latency.open_loop
        times = {"arrival to answer": loop.latency, "arrival to start": loop.waiting}
        blocks.append(f"{_table('open loop, ms:<', times, draw)}\n{wrapped(_open_loop(loop))}")
    return "\n\n".join((*blocks, "\n".join(wrapped(line) for line in _lines(latency))))


def _lines(latency: LatencyReport) -> Iterator[str]:
    ended = {True: ", stable", False: ", NOT stable: its times are in doubt", None: ""}[latency.stable]
    interval = ""
    if latency.total.interval is not None:
        interval = ", median {:.3f} to {:.3f} ms (95% interval)".format(*latency.total.interval)
    yield (
        f"batch {latency.batch}, {latency.iterations} iterations after {latency.warmup} for warm-up{ended}; "
        f"{latency.throughput:.4g} rows/s{interval}"
    )
    load = f"; {latency.others}" if latency.others else ""
    yield f"{RunsOn(latency.backend, latency.threads, latency.reason)}; {latency.machine}{load}"
    memory = latency.memory
    since = "" if memory.covers == "measurement" else " since the process started"
    yield f"memory: {_megabytes(memory.peak_rss)} peak RSS{since}, {_megabytes(memory.device)} on the device"
    yield f"transfers {latency.transfers}, CUDA graphs {latency.cuda_graphs}{_state(latency)}"
    yield (
        _energy(latency.energy) if isinstance(latency.energy, Energy) else f"energy {NOTHING}: {latency.energy.reason}"
    )


def _energy(energy: Energy) -> str:
    inferences = f"{energy.inferences:,} inferences in {energy.seconds:.1f} s"
    peak = NOTHING if energy.peak_watts is None else f"{energy.peak_watts:.1f} W"
    throttled = ", ".join(energy.throttled) or "none seen"
    hot = NOTHING if energy.peak_temperature is None else f"{energy.peak_temperature:.0f} °C"
    clock = NOTHING if energy.lowest_clock is None else f"{energy.lowest_clock / 1e6:.0f} MHz"
    shared = "" if energy.unified_memory is None else f"; unified memory {_megabytes(energy.unified_memory)} used"
    joules = f"{energy.joules_per_inference:.3g} J per inference, {energy.net_joules_per_inference:.3g} J net of idle"
    return (
        f"energy: {joules}; {energy.mean_watts:.1f} W mean, {peak} peak, {energy.idle_watts:.1f} W idle before; "
        f"{inferences}; temperature {hot} at most, clock {clock} at least, throttling {throttled}{shared}; "
        f"{energy.source}"
    )


def _open_loop(loop: OpenLoopReport) -> str:
    verdict = "sustained" if loop.sustained else "NOT sustained: the queue grows, and so do these times"
    given_up = f", {loop.unanswered} given up (times are lower bounds)" if loop.unanswered else ""
    return (
        f"{loop.requests} requests, {loop.rate:g} per second scheduled, {loop.achieved:.4g} answered by "
        f"{loop.callers} caller{'s' if loop.callers > 1 else ''}: {verdict}{given_up}; "
        f"queue depth {loop.queue_depth.mean:.1f} mean, {loop.queue_depth.max:.0f} at most"
    )


def _state(latency: LatencyReport) -> str:
    conditions = latency.conditions
    mode = f", power mode {conditions.power_mode}" if conditions.power_mode else ""
    clocks = "".join(f", {unit} {hertz / 1e6:.0f} MHz" for unit, hertz in (conditions.clocks or {}).items())
    hottest = max((conditions.temperature or {}).values(), default=None)
    return f"{mode}{clocks}{'' if hottest is None else f', {hottest:.0f} °C before'}"


def _table(title: str, parts: dict[str, Distribution], draw: Draw, *, mean: bool = False) -> str:
    last = ("mean",) if mean else ()
    rows = [(name, *_percentiles(times), *(f"{times.mean:.3f}" for _ in last)) for name, times in parts.items()]
    return draw((title, *PERCENTILES, *last), rows)


def _percentiles(times: Distribution) -> tuple[str, ...]:
    return tuple(f"{getattr(times, name):.3f}" for name in PERCENTILES)


def _megabytes(size: int | None) -> str:
    return NOTHING if size is None else f"{size / 1e6:.4g} MB"
