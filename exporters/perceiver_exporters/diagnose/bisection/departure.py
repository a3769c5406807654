"""The first value of a graph that is farther from the FP32 graph's than the precision explains."""

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
"""Values held at a time, of three graphs: large attention scores would not all fit."""


@dataclass(frozen=True)
class Distance:
    """How far one value is from the FP32 graph's, in relative L2: `noise` a fresh export's, `error` the bundle's."""

    tensor: str
    noise: float
    error: float
    bound: float

    @property
    def departed(self) -> bool:
        """Whether the precision does not explain the error; it explains no NaN and no infinity."""
        return not self.error <= self.bound


@dataclass(frozen=True)
class Graphs:
    """A component of the bundle beside two fresh exports of it: at the bundle's precision, and in FP32."""

    bundle: onnx.ModelProto
    fresh: onnx.ModelProto
    fp32: onnx.ModelProto


@dataclass(frozen=True)
class Departure:
    """The first distance that departed, and the values before it that did not."""

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
        """Compare all values that the three graphs share, in the order of the bundle's nodes, up to a departure."""
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
        """Values of the bundle's graph by name, among them its inputs."""
        return {n: inputs[n] for n in names if n in inputs} | self._bundle.run(inputs, names)

    def expected(self, inputs: Mapping[str, Array], name: str) -> Array:
        """What the FP32 graph has there."""
        return self._fp32.run(inputs, [canonical(name)])[canonical(name)]

    def _judge(self, name: str, exact: Array, fresh: Array, bundle: Array) -> Distance:
        noise = _distance(exact, fresh)
        bound = max(self._precision.margins.margin * noise, self._precision.margins.floor)
        return Distance(name, noise, _distance(exact, bundle), bound)


def _distance(exact: Array, got: Array) -> float:
    """Relative L2; infinite for other shapes and for numbers that are not finite where they should be."""
    if exact.shape != got.shape:
        return math.inf
    a, b = exact.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a) == np.isfinite(b)).all():
        return math.inf
    a, b = np.where(np.isfinite(a), a, 0.0), np.where(np.isfinite(b), b, 0.0)
    return relative_l2(a, b) if a.any() else float(np.linalg.norm(b))
