"""Peak memory of a calibration over N and over 10 N samples, each in its own process.

    python benchmarks/calibration_memory.py [--model fashion-perceiver]

Samples are drawn one by one from the model's training data, with noise, so that none is kept in memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import torch

from perceiver_deploy.sources.source import CALIBRATION_BATCH, batches, resolve
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision import Feeds
from perceiver_exporters.precision.calibration import METHODS
from perceiver_exporters.precision.calibration.calibrate import calibrate


class Drawn(Sequence[Feeds]):
    """`count` samples, each made when it is asked for."""

    def __init__(self, real: Sequence[Feeds], count: int) -> None:
        self._real, self._count = real, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Feeds: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Feeds]: ...
    def __getitem__(self, index: int | slice) -> Feeds | Sequence[Feeds]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        random, sample = np.random.default_rng(index), self._real[index % len(self._real)]
        return {name: _noisy(array, random) for name, array in sample.items()}


def _noisy(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return array + 0.01 * random.standard_normal(array.shape, dtype=array.dtype)


def run(name: str, count: int) -> Iterator[str]:
    torch.set_num_threads(1)
    model = resolve(name)
    assert model.dataset is not None
    cut = model.family.cut(model.module)
    graphs = {c.name: trace(c, cut.profile) for c in cut.components}
    real = batches(model.dataset.calibration, CALIBRATION_BATCH)
    start = time.perf_counter()
    statistics = calibrate(cut, graphs, Drawn(real, count))
    tensors = sum(len(each.tensors) for each in statistics.values())
    for each in statistics.values():
        for observed in each.tensors.values():
            for method in METHODS:
                observed.bounds(method)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    yield f"{count * CALIBRATION_BATCH:,}|{tensors}|{peak:.0f}|{time.perf_counter() - start:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion-perceiver")
    parser.add_argument("--batches", type=int, default=8, help="of the smaller set")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count is not None:
        print(*run(given.model, given.count))
        return
    print("| Samples | Tensors | Peak RSS, MB | Seconds |\n|---:|---:|---:|---:|")
    for count in (given.batches, 10 * given.batches):
        command = [sys.executable, __file__, "--model", given.model, "--count", str(count)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"| {' | '.join(out.strip().split('|'))} |", flush=True)


if __name__ == "__main__":
    main()
