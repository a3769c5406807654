"""A histogram of any number of values in constant memory, independent of their order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from perceiver_runtime.tensors import Array

HALF = 2048
"""Bins on each side of zero."""


@dataclass
class Histogram:
    """Counts of values in 2 x HALF equal bins over [-limit, limit), and their extremes.

    `limit` is a power of two. When a value falls outside it doubles, and each pair of bins becomes one: edges of the
    wider bins are edges of the narrower ones, so nothing is ever counted in the wrong bin.
    """

    limit: float = 2.0**-24
    low: float = np.inf
    high: float = -np.inf
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    def add(self, values: Array) -> None:
        """Count floating point values of any shape; none may be NaN or infinite."""
        flat = values.ravel()
        if not flat.size:
            return
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self._widen(max(-self.low, self.high))
        bins = np.floor(flat.astype(np.float64) * (HALF / self.limit)).astype(np.int32)
        self.counts += np.bincount(bins + HALF, minlength=2 * HALF)

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.limit / HALF

    @property
    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Counts by magnitude (HALF,), the smallest first."""
        folded: npt.NDArray[np.int64] = self.counts[HALF:] + self.counts[:HALF][::-1]
        return folded

    def _widen(self, peak: float) -> None:
        while peak >= self.limit:
            merged = self.counts.reshape(HALF, 2).sum(axis=1)
            self.counts = np.zeros(2 * HALF, np.int64)
            self.counts[HALF // 2 : HALF // 2 + HALF] = merged
            self.limit *= 2
