"""`perceiver-run {inspect,verify,bench,run,predict,evaluate,build,layers,selftest,sign} BUNDLE`.

Results go to stdout, all else to stderr.

Exit codes: see `perceiver_runtime.errors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceiver_runtime import __version__, progress
from perceiver_runtime.backends import BACKENDS
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cli import report
from perceiver_runtime.cli.bench import add_command as add_bench_command
from perceiver_runtime.cli.build import add_command as add_build_command
from perceiver_runtime.cli.evaluate import add_command as add_evaluate_command
from perceiver_runtime.cli.exits import run_program
from perceiver_runtime.cli.layers import add_command as add_layers_command
from perceiver_runtime.cli.options import Parser, integer
from perceiver_runtime.cli.predict import add_command as add_predict_command
from perceiver_runtime.cli.progress import ProgressLines, progress_shown
from perceiver_runtime.cli.sandbox import OUT_OF_MEMORY, add_sandbox_options, limits_of
from perceiver_runtime.cli.selftest import add_command as add_selftest_command
from perceiver_runtime.cli.table import markdown, table
from perceiver_runtime.errors import SandboxError
from perceiver_runtime.escapes import command_line, printable
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format import arrays
from perceiver_runtime.format.outputs import check_file
from perceiver_runtime.measure.verify import verify
from perceiver_runtime.sandbox import run_sandboxed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answer its exit code. SystemExit is raised by `--help` and `--version` alone."""
    return run_arguments(sys.argv[1:] if argv is None else argv)


def run_arguments(arguments: Sequence[str], *, sandboxed: bool = False) -> int:
    """`main`, in a process that has the limits of `--sandbox` already if it is `sandboxed`."""

    def command() -> int:
        options = _parser().parse_args(arguments)
        if "sandbox" in options and not sandboxed and (limits := limits_of(options)) is not None:
            return run_sandboxed(arguments, limits)
        options.draw = markdown if options.markdown else table
        with progress_shown(None if options.quiet else ProgressLines()):
            try:
                code: int = options.command(options)
            except MemoryError as error:
                if sandboxed:
                    raise SandboxError(OUT_OF_MEMORY) from error
                raise
        return code

    return run_program("perceiver-run", "perceiver-run", command, as_json="--json" in arguments)


def _inspect(options: argparse.Namespace) -> int:
    bundle = load_bundle(options.bundle, require_signature=options.require_signature)
    if options.json:
        print(report.to_json(report.overview(bundle)))
    else:
        print(f"{report.describe(bundle.manifest, options.draw)}\n\n{report.running(bundle)}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    with _open(options) as session:
        result = verify(session)
    records = report.records(result.reports, result.runs_on, result.conditions)
    print(report.to_json(records) if options.json else report.parity_table(result, options.draw))
    if not result.passed:
        _tell(f"to find the node, on a workstation: {command_line('perceiver-export', 'bisect', options.bundle)}")
    return 0 if result.passed else 1


def _run(options: argparse.Namespace) -> int:
    check_file(options.out)
    stored = arrays.stored_feeds(options.inputs, options.input)
    checks = {name: getattr(options, name) for name in ("check_finite", "check_outputs", "self_test")}
    with _open(options, **checks) as session:
        feeds = arrays.load(stored, session.inputs, session.manifest.profiles)
        results = session.run(feeds, options.outputs)
    arrays.save(options.out, results)
    shapes = report.records(arrays.shapes(results), session.runs_on)
    print(report.to_json(shapes) if options.json else report.array_table(results, options.out, options.draw))
    return 0


def _sign(options: argparse.Namespace) -> int:
    from perceiver_runtime.signing import sign_bundle  # other commands do not wait for it

    signed = sign_bundle(options.bundle, options.key)
    print(report.to_json(signed) if options.json else printable(str(signed)))
    return 0


def _open(options: argparse.Namespace, *, check_finite: bool = False, **others: Any) -> Session:
    """Golden samples are run as the reference took them; the caller's arrays are checked. Others: `open_session`'s."""
    progress.report(f"opening {options.bundle}")
    session = open_session(
        options.bundle,
        options.backend,
        options.threads,
        copy_weights=options.copy_weights,
        check_finite=check_finite,
        require_signature=options.require_signature,
        **others,
    )
    progress.report(f"running on {session.runs_on}")
    return session


def _tell(message: str) -> None:
    print(printable(message), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("perceiver-run", description="Run, verify and time a Perceiver bundle.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plain = Parser(add_help=False)
    plain.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory of the bundle")
    forms = plain.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print results as JSON")
    forms.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    plain.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    shared = Parser(add_help=False, parents=[plain])
    shared.add_argument(
        "--require-signature",
        action="append",
        type=Path,
        metavar="PUBLIC.pem",
        help="refuse a bundle that this key has not signed; repeat to trust several keys",
    )
    device = Parser(add_help=False, parents=[shared])
    names, chosen = (
        ("auto", *BACKENDS),
        "engines that fit this machine, else a tuning, else onnxruntime-cuda for target cuda, else onnxruntime",
    )
    device.add_argument(
        "--backend",
        default="auto",
        choices=names,
        metavar="NAME",
        help=f"one of {', '.join(names)}; auto: {chosen} (default: auto)",
    )
    device.add_argument("--threads", type=integer(1), help="CPU threads (default: 1 for small models, else all cores)")
    device.add_argument("--copy-weights", action="store_true", help="read large weights into memory, don't map them")
    add_sandbox_options(device)
    inspect = commands.add_parser("inspect", parents=[shared], help="check every file and show what the bundle holds")
    inspect.set_defaults(command=_inspect)
    check = commands.add_parser("verify", parents=[device], help="compare with the golden samples; exit 1 if any fails")
    check.set_defaults(command=_verify)
    add_bench_command(commands, device, _open, _tell)
    run = commands.add_parser("run", parents=[device], help="run arrays from files")
    run.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy", help="one input; repeat for more")
    run.add_argument("--inputs", type=Path, metavar="FILE.npz", help="inputs by name")
    run.add_argument(
        "--check-finite",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse NaN, infinity and numbers too large to be squared in floating-point inputs (default: refuse)",
    )
    run.add_argument("--check-outputs", action="store_true", help="refuse outputs with NaN or infinity; exit 1")
    run.add_argument("--self-test", action="store_true", help="run the golden samples first; exit 1 if they fail")
    run.add_argument("--outputs", nargs="+", metavar="NAME", help="only these outputs (default: all)")
    run.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.npz", help="where the outputs go")
    run.set_defaults(command=_run)
    add_predict_command(commands, device, _open)
    add_evaluate_command(commands, device, _open, _tell)
    add_build_command(commands, shared)
    add_layers_command(commands, shared)
    add_selftest_command(commands, device, _open)
    signed = commands.add_parser("sign", parents=[plain], help="sign a bundle, so that devices can refuse all others")
    signed.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="Ed25519 private key, PKCS#8 in PEM")
    signed.set_defaults(command=_sign)
    return parser
