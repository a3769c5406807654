"""`perceiver-run selftest BUNDLE -o report.zip`: all that this device shows of a bundle, in a file to pass on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_runtime.benchmark.loops import MAX_RUNS
from perceiver_runtime.benchmark.report import NotMeasured
from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer
from perceiver_runtime.cli.table import wrapped
from perceiver_runtime.escapes import printable
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.outputs import check_file

if TYPE_CHECKING:
    from perceiver_runtime.selftest.records import SelfTest


def add_command(commands: Any, device: argparse.ArgumentParser, opened: Callable[..., Session]) -> None:
    """Add the command to a parser's subcommands; `opened` opens the session of its options."""
    parser = commands.add_parser(
        "selftest", parents=[device], help="verify, time and inspect on this device, in one file to pass on"
    )
    add = parser.add_argument
    add("-o", "--out", type=Path, required=True, metavar="FILE.zip", help="where the report goes")
    add("--warmup", type=integer(0), help="runs before the measured ones (default: until times are stable)")
    add("--iterations", type=integer(1, MAX_RUNS), help="least number of measured runs (default: 100)")
    parser.set_defaults(command=lambda options: _selftest(options, opened))


def _selftest(options: argparse.Namespace, opened: Callable[..., Session]) -> int:
    from perceiver_runtime.selftest.archive import write_report  # other commands do not wait for these modules
    from perceiver_runtime.selftest.run import self_test

    check_file(options.out)
    with opened(options) as session:
        made = self_test(session, options.iterations, options.warmup)
        index = write_report(options.out, made, options.bundle)
    if options.json:
        print(report.to_json({"report": index, "content": made}))
    else:
        print("\n".join(wrapped(line) for line in (*_lines(made), f"written to {printable(str(options.out))}")))
    return 0 if made.parity.passed else 1


def _lines(made: SelfTest) -> Iterator[str]:
    latency, energy = made.latency, made.latency.energy
    yield f"parity {report.verdict(made.parity.passed)} on {made.parity.samples} golden samples"
    yield f"{latency.total.p50:.3f} ms p50, {latency.total.p99:.3f} ms p99 on {latency.backend}; {latency.machine}"
    joules = energy.reason if isinstance(energy, NotMeasured) else f"{energy.joules_per_inference:.3g} J per inference"
    yield f"energy {'not measured: ' if isinstance(energy, NotMeasured) else ''}{joules}"
    if isinstance(made.layers, NotMeasured):
        yield f"layers not measured: {made.layers.reason}"
    else:
        yield f"layers of {len(made.layers.engines)} engines"
