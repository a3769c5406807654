"""Peak memory of the models that read or answer too much at once: forecast and measured, in chunks and whole.

    python benchmarks/memory.py DIRECTORY [NAME ...] [--write]

DIRECTORY holds a bundle per name; one that is missing is exported there, with random weights. Each measurement is a
process of its own that only holds the runtime, and may take no more than the free memory less a margin: what asks for
more is stopped there, and the table says so. A run in chunks that needs more than the limit for its model fails the
script.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from perceiver_deploy import export
from perceiver_deploy.source import resolve
from perceiver_exporters.component import Cut
from perceiver_exporters.memory import forecast, with_chunks
from perceiver_runtime.bundle import load_bundle, write_manifest

LIMITS = {"optical-flow-perceiver": 1.5e9, "multimodal-perceiver": 2e9}
"""Bytes that one run in chunks may take at most."""
MARGIN = 2e9
REFUSED = ("MemoryError", "Unable to allocate", "Failed to allocate memory", "std::bad_alloc", "bad allocation")
"""What NumPy and ONNX Runtime say when the system gives no more memory."""
DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- memory -->", "<!-- end of memory -->"
HEADER = "| Model | Inputs and queries | Forecast, MB | Peak RSS, MB |\n|---|---|---:|---:|"
RUN = """
import resource, sys
import numpy as np
from perceiver_runtime import open_session
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
with open_session(sys.argv[1], threads=2) as session:
    sizes = {s: r.opt for s, r in session.manifest.profiles[0].dimensions.items()}
    feeds = {
        spec.name: np.arange(sizes[spec.shape[0]]) if spec.dtype == "int64"
        else np.zeros(spec.resolve(sizes), spec.dtype)
        for spec in session.inputs
    }
    session.run(feeds)
    # Of this program alone: ru_maxrss counts the process that it was forked from, too.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) * 1024)
"""


def measure(bundle: Path, allowed: int) -> float | None:
    """Peak bytes of one complete run in a fresh process; None if it asked for more than is allowed."""
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


def row(name: str, kind: str, expected: int, bundle: Path, limit: float = float("inf")) -> str:
    allowed = int(free_bytes() - MARGIN)
    peak = measure(bundle, allowed)
    if peak is not None and peak > limit:
        raise SystemExit(f"{name}, {kind}: expected at most {limit / 1e6:,.0f} MB, got {peak / 1e6:,.0f}")
    measured = f"more than {allowed / 1e6:,.0f}" if peak is None else f"{peak / 1e6:,.0f}"
    return f"| `{name}` | {kind} | {expected / 1e6:,.0f} | {measured} |"


def rows(directory: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        bundle = directory / name
        if not bundle.exists():
            export(name, bundle)
        model = resolve(name)
        cut = model.family.cut(model.module)
        yield row(name, "in chunks", forecast(cut).total, bundle, LIMITS[name])
        yield row(name, "whole", forecast(whole(cut)).total, unchunked(bundle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", default=tuple(LIMITS))
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    given = parser.parse_args()
    lines = [HEADER]
    for line in rows(given.directory, given.names):
        lines.append(line)
        print(line, flush=True)
    if given.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text("\n".join([f"{before}{BEGIN}\n", *lines, f"\n{END}{after}"]), encoding="utf-8")


if __name__ == "__main__":
    main()
