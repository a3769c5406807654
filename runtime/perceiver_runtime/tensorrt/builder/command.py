"""`perceiver-run build BUNDLE`: engines built on the device that runs them, with TensorRT and this package alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer
from perceiver_runtime.format.outputs import check_file
from perceiver_runtime.tensorrt.api import MODULES

if TYPE_CHECKING:  # the other commands of perceiver-run must not wait for this one's modules
    from perceiver_runtime.tensorrt.builder.bundle import EngineReport
    from perceiver_runtime.tensorrt.builder.progress import BuildProgress

MEGABYTE = 1 << 20


def add_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the parser of `perceiver-run`."""
    build = commands.add_parser("build", parents=[shared], help="build the engines of a bundle or kit on this GPU")
    build.add_argument("--target", help="name of the engines' folder (default: the kit's, else the bundle's target)")
    build.add_argument("--module", choices=MODULES, help="TensorRT package (default: the kit's or the target's)")
    build.add_argument("--workspace", type=integer(1), metavar="MB", help="bound of TensorRT's scratch memory")
    build.add_argument("--version-compatible", action="store_true", help="engines that newer TensorRT versions run")
    build.add_argument("--timing-cache", type=Path, metavar="FILE", help="kernel timings, kept between builds")
    build.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Build, and print what came of it."""
    from perceiver_runtime.bundle import load_bundle
    from perceiver_runtime.tensorrt.api import load_tensorrt
    from perceiver_runtime.tensorrt.builder.device_build import build_here, module_for
    from perceiver_runtime.tensorrt.cuda import load_cudart

    if options.timing_cache is not None:
        check_file(options.timing_cache)
    bundle = load_bundle(options.bundle)
    reports = build_here(
        bundle,
        load_tensorrt(options.module or module_for(bundle, options.target)),
        load_cudart(),
        target=options.target,
        workspace=None if options.workspace is None else options.workspace * MEGABYTE,
        version_compatible=options.version_compatible,
        timing_cache=options.timing_cache,
        report=progress_line,
    )
    print(report.to_json(reports) if options.json else table(reports))
    return 0


def progress_line(component: str, step: BuildProgress) -> None:
    """One line per finished phase on stderr."""
    if step.depth <= 1 and step.step == step.steps:
        print(f"{component}: {step.phase}", file=sys.stderr)


def table(reports: tuple[EngineReport, ...]) -> str:
    """Engines, one a line."""
    lines = [f"{'component':24}{'seconds':>9}{'MB':>9}{'layers':>8}  matrix products"]
    for r in reports:
        products = ", ".join(f"{count} {kind}" for kind, count in r.products.items()) or "none"
        lines.append(f"{r.component:24}{r.seconds:9.1f}{r.engine_bytes / 1e6:9.2f}{r.layers:8}  {products}")
    return "\n".join(lines)
