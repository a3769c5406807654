"""Calibration statistics of a component: a histogram per tensor, and extremes per channel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from perceiver_exporters.precision.calibration.histogram import Histogram
from perceiver_exporters.precision.calibration.methods import METHODS, Bounds
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Array

Extremes = npt.NDArray[np.float32]


@dataclass
class Observed:
    """Statistics of one activation; channels are the last axis."""

    histogram: Histogram = field(default_factory=Histogram)
    low: Extremes = field(default_factory=lambda: np.zeros(0, np.float32))
    high: Extremes = field(default_factory=lambda: np.zeros(0, np.float32))

    def see(self, values: Array, name: str) -> None:
        """Add values (..., channels). Raises CheckError if one is NaN or infinite."""
        if not np.isfinite(values).all():
            raise CheckError(f"calibration: {name} has NaN or infinite values; check the calibration data")
        self.histogram.add(values)
        rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
        if self.low.shape != rows.shape[1:]:  # the first values; or channels whose number varies, which nobody scales
            self.low, self.high = rows.min(axis=0), rows.max(axis=0)
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))

    def bounds(self, method: str, divisor: Extremes | None = None) -> Bounds:
        """The range by a method of METHODS; with a divisor per channel, the extremes of the divided tensor.

        After scale migration there are no outliers to clip.
        """
        if divisor is None:
            return METHODS[method](self.histogram)
        return min(0.0, float((self.low / divisor).min())), max(0.0, float((self.high / divisor).max()))

    @property
    def peaks(self) -> Extremes:
        """Largest magnitude per channel."""
        largest: Extremes = np.maximum(-self.low, self.high)
        return largest


@dataclass
class Statistics:
    """Statistics of a component over the first `samples` calibration samples.

    `tensors` are those of the graph, by name. `sites` are the same tensors in PyTorch, by the order of execution of the
    product (`3`), or the output of a convolution (`3/output`): tolerances are derived from them, independently of the
    graph.
    """

    samples: int = 0
    tensors: dict[str, Observed] = field(default_factory=lambda: defaultdict(Observed))
    sites: dict[str, Observed] = field(default_factory=lambda: defaultdict(Observed))
