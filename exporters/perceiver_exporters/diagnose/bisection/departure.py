"""The first value of a graph whose distance to the FP32 graph exceeds the precision's noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from perceiver_exporters.diagnose.bisection.values import OpenGraph, canonical
from perceiver_exporters.precision import Precision
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

BATCH = 32
"""Values compared at a time, to bound memory: attention scores are large."""


@dataclass(frozen=True)
class Distance:
    """Relative L2 distance of one value to the FP32 graph's: `noise` of a fresh export, `error` of the bundle."""

    tensor: str
    noise: float
    error: float
    bound: float

    @property
    def departed(self) -> bool:
        """Whether the error exceeds the bound. NaN and infinity always do."""
        return not self.error <= self.bound


@dataclass(frozen=True)
class Graphs:
    """A component's graph in the bundle, in a fresh export at the same precision, and in FP32."""

    bundle: onnx.ModelProto
    fresh: onnx.ModelProto
    fp32: onnx.ModelProto


@dataclass(frozen=True)
class Departure:
    """The first value beyond its bound, and the values before it that are within theirs."""

    distance: Distance
    agreed: tuple[str, ...]


class Comparison:
    """The three graphs, ready to run."""

    def __init__(self, graphs: Graphs, precision: Precision) -> None:
        self._precision = precision
        self._bundle, self._fresh, self._fp32 = map(OpenGraph, (graphs.bundle, graphs.fresh, graphs.fp32))
        known = {*self._fp32.names, *(tensor.name for tensor in graphs.fp32.graph.initializer)}
        fresh = set(self._fresh.names)
        self.shared = tuple(name for name in self._bundle.names if name in fresh and canonical(name) in known)

    def first(self, inputs: Mapping[str, Array]) -> Departure | None:
        """Compare the values that the three graphs share, in node order, up to the first beyond its bound."""
        agreed: list[str] = []
        for distance in self.distances(inputs):
            if distance.departed:
                return Departure(distance, tuple(agreed))
            agreed.append(distance.tensor)
        return None

    def distances(self, inputs: Mapping[str, Array]) -> Iterator[Distance]:
        """The distances of all shared values."""
        for start in range(0, len(self.shared), BATCH):
            names = self.shared[start : start + BATCH]
            bundle, fresh = self._bundle.run(inputs, names), self._fresh.run(inputs, names)
            fp32 = self._fp32.run(inputs, map(canonical, names))
            for name in names:
                yield self._judge(name, fp32[canonical(name)], fresh[name], bundle[name])

    def values(self, inputs: Mapping[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
        """Values of the bundle's graph by name, graph inputs included."""
        return {n: inputs[n] for n in names if n in inputs} | self._bundle.run(inputs, names)

    def expected(self, inputs: Mapping[str, Array], name: str) -> Array:
        """The value in the FP32 graph."""
        return self._fp32.run(inputs, [canonical(name)])[canonical(name)]

    def _judge(self, name: str, exact: Array, fresh: Array, bundle: Array) -> Distance:
        noise = _distance(exact, fresh)
        bound = max(self._precision.margins.margin * noise, self._precision.margins.floor)
        return Distance(name, noise, _distance(exact, bundle), bound)


def _distance(exact: Array, got: Array) -> float:
    """Relative L2; infinite for other shapes and for non-finite numbers that should be finite."""
    if exact.shape != got.shape:
        return math.inf
    a, b = exact.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a) == np.isfinite(b)).all():
        return math.inf
    a, b = np.where(np.isfinite(a), a, 0.0), np.where(np.isfinite(b), b, 0.0)
    return relative_l2(a, b) if a.any() else float(np.linalg.norm(b))
