"""`perceiver-run layers BUNDLE -o DIR`: layers of the engines and the time of each, for NVIDIA's engine explorer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.escapes import printable
from perceiver_runtime.format.outputs import check_directory

if TYPE_CHECKING:
    from perceiver_runtime.tensorrt.layer_times import EngineLayers

COLUMNS = ("component:<", "layers", "ms", "slowest layer:<", "ms")


def add_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the parser of `perceiver-run`."""
    parser = commands.add_parser("layers", parents=[shared], help="time the layers of the engines, for trex")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--iterations", type=integer(1), default=20, help="measured runs of each engine (default: 20)")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Time, write and print; the other commands do not wait for the modules imported here."""
    from perceiver_runtime.bundle import load_bundle
    from perceiver_runtime.execution.choice import choose
    from perceiver_runtime.tensorrt.backend import TensorRT
    from perceiver_runtime.tensorrt.layer_times import write_layers

    check_directory(options.out)
    with load_bundle(options.bundle, require_signature=options.require_signature) as bundle:
        chosen = choose(bundle)
        if not isinstance(chosen.backend, TensorRT):
            raise UnavailableError(f"layers: expected engines that fit this machine, got {chosen.reason}")
        made = tuple(write_layers(bundle, chosen.backend, options.out, options.iterations))
    if options.json:
        print(report.to_json({each.component: each.profile() for each in made}))
    else:
        print(f"{options.draw(COLUMNS, [_row(each) for each in made])}\nwritten to {printable(str(options.out))}")
    return 0


def _row(made: EngineLayers) -> tuple[str, ...]:
    slowest = max(made.profile()[1:], key=lambda record: float(record["medianMs"]), default=None)
    name, most = (slowest["name"], f"{slowest['medianMs']:.3g}") if slowest else ("", "")
    return made.component, str(len(made.times)), f"{made.milliseconds:.3g}", name, most
