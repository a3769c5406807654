"""Latency and memory of a bundle in a process of its own, which loads the lean runtime and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perceiver_runtime.benchmark.report import LatencyReport
from perceiver_runtime.errors import BundleError, PerceiverError, UnavailableError
from perceiver_runtime.format import schema, strict_json


def measure_alone(
    bundle: Path, backend: str, threads: int | None, *, batch: int, iterations: int, warmup: int
) -> LatencyReport:
    """What `perceiver-run bench --json` prints. Raises PerceiverError with its message where it fails."""
    options = {"backend": backend, "batch": batch, "iterations": iterations, "warmup": warmup, "threads": threads}
    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "perceiver_runtime", "bench", str(bundle), "--json", "--quiet", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        printed = strict_json.loads(done.stdout)
    except ValueError:
        raise UnavailableError(f"{bundle}: perceiver-run bench ended with {done.returncode}") from None
    if "error" in printed:
        raise PerceiverError(printed["error"]["message"])
    return schema.decode(LatencyReport, printed, "perceiver-run bench")


def read_latency(path: Path) -> LatencyReport:
    """What `perceiver-run bench --json` printed on a device. Raises BundleError if the file holds something else."""
    try:
        return schema.decode(LatencyReport, strict_json.loads(path.read_bytes()), str(path))
    except ValueError as error:
        raise BundleError(f"{path}: expected the output of perceiver-run bench --json: {error}") from error
