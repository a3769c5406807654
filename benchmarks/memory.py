"""Peak memory of a session, estimated and measured; models that run in chunks are also run whole.

    python benchmarks/memory.py DIRECTORY [NAME ...]

DIRECTORY keeps bundles, as for benchmarks/peers.py. Each measurement is a process that imports only the runtime, runs
twice (memory that ONNX Runtime keeps after the first run counts), and is limited to the free memory less a margin: a
process that needs more is stopped, and the table says so. The script fails if a session in chunks exceeds the limit
of its model, or an estimate differs by more than FURTHEST. The result is `benchmarks/results/memory.json`, the table
of which is in docs/results/sessions.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from record import bundles, write

from perceiver_deploy.sources.source import resolve
from perceiver_exporters.component import Cut
from perceiver_exporters.memory.estimate import estimate, with_chunks
from perceiver_runtime.bundle import load_bundle, write_manifest

LIMITS = {"optical-flow-perceiver": 0.75e9, "multimodal-perceiver": 0.6e9}
"""Bytes that one session in chunks may take at most."""
NAMES = (
    "fashion-perceiver",
    "language-identifier",
    "emoji-namer",
    "language-perceiver",
    "vision-perceiver-conv",
    "vision-perceiver-fourier",
    *LIMITS,
)
FURTHEST = 1.5
"""Forecast over measured; below 1 it promised too little."""
MARGIN = 2e9
REFUSED = ("MemoryError", "Unable to allocate", "Failed to allocate memory", "std::bad_alloc", "bad allocation")
"""What NumPy and ONNX Runtime say when the system gives no more memory."""
RUN = """
import resource, sys
import numpy as np
from perceiver_runtime import open_session
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
with open_session(sys.argv[1], threads=2) as session:
    sizes = {s: r.opt for s, r in session.manifest.profiles[0].dimensions.items()}
    feeds = {
        spec.name: np.arange(sizes[spec.shape[0]]) if spec.dtype == "int64" and spec.rank == 1
        else np.ones(spec.resolve(sizes), spec.dtype)
        for spec in session.inputs
    }
    for _ in range(2):
        session.run(feeds)
    # Of this program alone: ru_maxrss counts the process that it was forked from, too.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) * 1024)
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """Bytes; no `peak` where the session asked for more than was `allowed`."""

    model: str
    kind: str
    forecast: int
    peak: float | None
    allowed: int


def measure(bundle: Path, allowed: int) -> float | None:
    """Peak bytes of two complete runs in a fresh process; None if it asked for more than is allowed."""
    command = [sys.executable, "-c", RUN, str(bundle), str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and not any(sign in done.stderr for sign in REFUSED):
        raise SystemExit(done.stderr)
    return None if done.returncode else float(done.stdout)


def unchunked(bundle: Path) -> Path:
    """The same graphs beside a manifest whose chunks are whole."""
    manifest, target = load_bundle(bundle).manifest, bundle.with_name(f"{bundle.name}-whole")
    for path in manifest.files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if not (target / path).exists():
            os.link(bundle / path, target / path)
    largest = manifest.profiles[0].dimensions
    steps = tuple(
        dataclasses.replace(s, chunk=dataclasses.replace(s.chunk, size=largest[s.chunk.dimension].max))
        if s.chunk
        else s
        for s in manifest.pipeline.steps
    )
    pipeline = dataclasses.replace(manifest.pipeline, steps=steps)
    write_manifest(target, dataclasses.replace(manifest, pipeline=pipeline))
    return target


def whole(cut: Cut) -> Cut:
    sizes = {s.chunk.dimension: cut.profile.dimensions[s.chunk.dimension].max for s in cut.pipeline.steps if s.chunk}
    return with_chunks(cut, sizes)


def free_bytes() -> int:
    """What the kernel can give without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def row(name: str, kind: str, expected: int, bundle: Path, limit: float = float("inf")) -> Row:
    allowed = int(free_bytes() - MARGIN)
    peak = measure(bundle, allowed)
    if peak is not None and peak > limit:
        raise SystemExit(f"{name}, {kind}: expected at most {limit / 1e6:,.0f} MB, got {peak / 1e6:,.0f}")
    return Row(name, kind, expected, peak, allowed)


def rows(directory: Path, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        model = resolve(name)
        bundle, cut = bundles(model, directory, ("fp32",))["fp32"], model.family.cut(model.module)
        chunked = any(step.chunk for step in cut.pipeline.steps)
        kind = "in chunks" if chunked else "whole"
        yield row(name, kind, estimate(cut).total, bundle, LIMITS.get(name, float("inf")))
        if chunked:
            yield row(name, "whole", estimate(whole(cut)).total, unchunked(bundle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    given = parser.parse_args()
    measured = []
    for each in rows(given.directory, given.names):
        measured.append(each)
        print(each, flush=True)
    write("memory", {"threads": 2, "rows": measured})
    far = [r for r in measured if r.kind != "whole" and r.peak and not 1 <= r.forecast / r.peak <= FURTHEST]
    if far:
        raise SystemExit(f"expected forecasts from 1 to {FURTHEST} times what was measured, got {far}")


if __name__ == "__main__":
    main()
