"""Calibration methods: from the statistics of a tensor to its quantised range, which always includes zero.

| Method | Range |
|---|---|
| minmax | all values |
| percentile | all but the outermost 0.01% of the values |
| entropy | the threshold whose quantised distribution has the least KL divergence (Migacz, GTC 2017) |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from perceiver_exporters.precision.calibration.histogram import HALF, Histogram

Bounds = tuple[float, float]
Method = Callable[[Histogram], Bounds]

OUTSIDE = 1e-4
"""Share of values that `percentile` clips, both sides together."""

LEVELS = 128
"""Integers on one side of zero."""

STEP = 8
"""Bins between the thresholds that `entropy` tries."""


def minmax(seen: Histogram) -> Bounds:
    """The extremes."""
    return _with_zero(seen, seen.low, seen.high)


def percentile(seen: Histogram) -> Bounds:
    """The quantiles at OUTSIDE / 2 and 1 - OUTSIDE / 2, to a bin's outer edge."""
    cumulative = np.cumsum(seen.counts)
    total = int(cumulative[-1])
    if not total:
        return minmax(seen)
    first = int(np.searchsorted(cumulative, OUTSIDE / 2 * total, side="right"))
    last = int(np.searchsorted(cumulative, (1 - OUTSIDE / 2) * total))
    return _with_zero(seen, (first - HALF) * seen.width, (last + 1 - HALF) * seen.width)


def entropy(seen: Histogram) -> Bounds:
    """The symmetric threshold with the least Kullback-Leibler divergence, no wider than the extremes.

    Zeros are left out, as many as there are more than their neighbours: integers hold zero exactly at any threshold.
    """
    counts = seen.magnitudes.astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    if not counts.any():
        return minmax(seen)
    used = int(np.nonzero(counts)[0][-1]) + 1
    tried = [*range(LEVELS, used, STEP), max(used, LEVELS)]
    best = min(tried, key=lambda n: _divergence(counts, n))
    return _with_zero(seen, -best * seen.width, best * seen.width)


def _divergence(counts: npt.NDArray[np.float64], kept: int) -> float:
    """KL(seen, clipped to the first `kept` bins | the same in LEVELS levels), in nats."""
    inside, outside = counts[:kept], counts[kept:].sum()
    clipped = inside.copy()
    clipped[-1] += outside
    level = np.minimum(np.arange(kept) * LEVELS // kept, LEVELS - 1)
    filled = inside > 0
    members = np.bincount(level, weights=filled, minlength=LEVELS)
    sums = np.bincount(level, weights=inside, minlength=LEVELS)
    share = np.divide(sums, members, out=np.zeros(LEVELS), where=members > 0)
    quantized = np.where(filled, share[level], 0.0)
    p, q = clipped / clipped.sum(), quantized / max(quantized.sum(), 1.0)
    where = p > 0
    return float((p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum())


def _with_zero(seen: Histogram, low: float, high: float) -> Bounds:
    return min(0.0, max(low, seen.low)), max(0.0, min(high, seen.high))


METHODS: dict[str, Method] = {"minmax": minmax, "percentile": percentile, "entropy": entropy}
