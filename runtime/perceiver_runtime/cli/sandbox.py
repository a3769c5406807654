"""Options of `perceiver-run` for bundles from strangers."""

from __future__ import annotations

import argparse

from perceiver_runtime.cli.options import number, size
from perceiver_runtime.errors import UsageError
from perceiver_runtime.sandbox import Limits

MAX_SECONDS = 86_400
MIN_MEMORY = 1 << 30
"""Address space that Python and a backend take before a bundle is opened."""
OUT_OF_MEMORY = "sandbox: it asked for more memory than allowed (--sandbox-memory allows more)"


def add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    """Add `--sandbox` and its limits."""
    group = parser.add_argument_group("bundles from strangers")
    group.add_argument("--sandbox", action="store_true", help="run in a process with limits and without network")
    group.add_argument(
        "--sandbox-memory", type=size, metavar="SIZE", help="its address space, with all that is mapped (default: 8GiB)"
    )
    group.add_argument(
        "--sandbox-time",
        type=number(0.1, MAX_SECONDS),
        metavar="SECONDS",
        help=f"until it is ended (default: {Limits.seconds:g})",
    )


def limits_of(options: argparse.Namespace) -> Limits | None:
    """The limits that options ask for; None without `--sandbox`. Raises UsageError for a limit without it."""
    given = {"memory": options.sandbox_memory, "seconds": options.sandbox_time}
    asked = {name: value for name, value in given.items() if value is not None}
    if not options.sandbox and asked:
        raise UsageError("--sandbox-memory and --sandbox-time: expected with --sandbox; add it, or leave them out")
    if options.sandbox_memory is not None and options.sandbox_memory < MIN_MEMORY:
        raise UsageError(
            f"--sandbox-memory: expected at least 1GiB, which the libraries take, got {options.sandbox_memory} bytes"
        )
    return Limits(**asked) if options.sandbox else None
