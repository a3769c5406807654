"""Latency and memory that the lean runtime measured: in a process of its own, or on a device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.conditions import unit_of
from perceiver_runtime.errors import BundleError, PerceiverError, UnavailableError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.telemetry.sources import open_source


def measure_alone(
    bundle: Path, backend: str, threads: int | None, *, batch: int, iterations: int, warmup: int
) -> LatencyReport:
    """What `perceiver-run bench --json` prints, with the energy where this machine can measure it.

    Raises PerceiverError with the command's message where it fails.
    """
    options = {"backend": backend, "batch": batch, "iterations": iterations, "warmup": warmup, "threads": threads}
    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    found = _run(bundle, given)
    try:
        open_source(unit_of(found.backend))
    except UnavailableError as error:
        return replace(found, energy=NotMeasured(str(error)))
    return _run(bundle, [*given, "--power"])


def _run(bundle: Path, options: Sequence[str]) -> LatencyReport:
    command = [sys.executable, "-m", "perceiver_runtime", "bench", str(bundle), "--json", "--quiet", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        printed = strict_json.loads(done.stdout)
    except ValueError:
        raise UnavailableError(f"{bundle}: perceiver-run bench ended with {done.returncode}") from None
    if isinstance(printed, dict) and "error" in printed:
        raise PerceiverError(printed["error"]["message"])
    return _decoded(printed, "perceiver-run bench")[0]


def read_measured(path: Path) -> tuple[LatencyReport, ...]:
    """What `perceiver-run bench --json` printed. Raises BundleError if the file holds something else, OSError."""
    try:
        return _decoded(strict_json.loads(path.read_bytes()), path.name)
    except (ValueError, BundleError) as error:
        raise BundleError(f"{path} (--bench): expected the output of perceiver-run bench --json: {error}") from error


def _decoded(content: object, where: str) -> tuple[LatencyReport, ...]:
    """One report, or one for each batch size."""
    found = content if isinstance(content, list) and content else [content]
    return tuple(schema.decode(LatencyReport, each, where) for each in found)
