"""`perceiver-run build BUNDLE`: engines built on the device that runs them, with TensorRT and this package alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perceiver_runtime import progress
from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import size
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import check_file
from perceiver_runtime.tensorrt.api import MODULES


def add_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the parser of `perceiver-run`."""
    build = commands.add_parser("build", parents=[shared], help="build the engines of a bundle or kit on this GPU")
    build.add_argument("--target", help="name of the engines' folder (default: the kit's, else the bundle's target)")
    build.add_argument("--module", choices=MODULES, help="TensorRT package (default: the kit's or the target's)")
    build.add_argument("--workspace", type=size, metavar="SIZE", help="most scratch memory of TensorRT, as 512MB")
    build.add_argument("--version-compatible", action="store_true", help="engines that newer TensorRT versions run")
    timings = "kernel timings, kept between builds, of this bundle and others"
    build.add_argument("--timing-cache", type=Path, metavar="FILE", help=timings)
    build.add_argument(
        "--attention",
        choices=("auto", "products", "operator"),
        default="auto",
        help="form of attention in FP16 and BF16 (default: operators where more is fused and parity passes)",
    )
    build.add_argument("--all", action="store_true", help="build engines again that fit this machine and the graphs")
    build.add_argument("--reuse", type=Path, metavar="OLD_BUNDLE", help="take over engines of graphs that are the same")
    build.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Build, and print what came of it; the other commands do not wait for the modules imported here."""
    from perceiver_runtime.bundle import load_bundle
    from perceiver_runtime.cuda.library import load_cudart
    from perceiver_runtime.measure.parity import component_failure
    from perceiver_runtime.tensorrt.api import load_tensorrt
    from perceiver_runtime.tensorrt.builder.device_build import build_here, module_for

    if options.reuse is not None and (options.all or options.workspace is not None or options.attention != "auto"):
        raise UsageError("--reuse: expected without --all, --workspace and --attention, which build every engine")
    if options.timing_cache is not None:
        check_file(options.timing_cache)
    bundle = load_bundle(options.bundle, require_signature=options.require_signature)
    old = None  # its engines are code as well: the same keys must have signed it
    if options.reuse is not None:
        old = load_bundle(options.reuse, require_signature=options.require_signature)
    reports = build_here(
        bundle,
        load_tensorrt(options.module or module_for(bundle, options.target)),
        load_cudart(),
        target=options.target,
        workspace=options.workspace,
        version_compatible=options.version_compatible,
        timing_cache=options.timing_cache,
        attention=options.attention,
        parity=component_failure,
        everything=options.all or options.workspace is not None or options.attention != "auto",
        old=old,
    )
    if bundle.signature is not None:
        progress.report("the signature did not cover the new engines and was removed; sign the bundle again")
    print(report.to_json(reports) if options.json else options.draw(*report.engine_table(reports)))
    return 0
