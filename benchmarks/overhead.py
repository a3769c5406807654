"""Session overhead of the shipped models, and batch 1 beside torch eager and beside the FP32 bundle.

    python benchmarks/overhead.py DIRECTORY [--rounds 60]

Overhead is the time of a run minus the sum of its components' times, both from ONNX Runtime's clock around the bound
graphs: checks, copies, calls between components. Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from record import bundles, write

from perceiver_deploy.api.bench import TORCH, bench
from perceiver_deploy.sources.source import resolve
from perceiver_runtime import measure, open_session
from perceiver_runtime.benchmark.statistics import Ratio

NAMES = ("fashion-perceiver", "language-identifier", "emoji-namer")
PRECISIONS = ("fp32", "int8")
RUNS = 300


@dataclass(frozen=True)
class Small:
    """One shipped model at one precision. `overhead_us` is the median over runs; times are medians.

    `speedup` is over torch eager; `over_fp32` over the FP32 bundle, in the same interleaved run.
    """

    model: str
    precision: str
    components: int
    session_ms: float
    eager_ms: float
    speedup: Ratio
    overhead_us: float
    over_fp32: Ratio | None


def measured(name: str, paths: Mapping[str, Path], rounds: int, threads: int) -> Iterator[Small]:
    reports = bench(list(paths.values()), iterations=rounds, threads=threads, backend="onnxruntime")
    for (precision, path), speed in zip(paths.items(), reports, strict=True):
        with open_session(path, "onnxruntime", threads) as session:
            latency = measure(session, iterations=RUNS)
            components = len(session.manifest.components)
        yield Small(
            name,
            precision,
            components,
            speed.session.p50,
            speed.peers[TORCH].p50,
            speed.speedups[TORCH],
            latency.overhead.p50 * 1e3,
            speed.speedups.get(str(paths["fp32"])),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for name in NAMES:
        rows += measured(name, bundles(resolve(name), given.directory, PRECISIONS), given.rounds, given.threads)
        for row in rows[-len(PRECISIONS) :]:
            print(
                f"| {row.model} | {row.precision} | {row.session_ms:.3f} | {row.eager_ms:.3f} | {row.speedup} "
                f"| {row.over_fp32 or ''} | {row.overhead_us:.0f} |",
                flush=True,
            )
    write("overhead", {"rounds": given.rounds, "threads": given.threads, "batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
