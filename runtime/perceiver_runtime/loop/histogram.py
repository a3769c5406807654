"""Latencies in memory of a fixed size: a histogram whose bins grow by 1 %, so that quantiles are exact to 1 %."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SMALLEST_S, GROWTH, BINS = 1e-6, 1.01, 2400
"""From a microsecond to more than four hours; what is outside counts in the first or last bin."""


@dataclass(frozen=True)
class LatencySummary:
    """Latencies in seconds. Quantiles are exact to 1 %, mean and maximum exact."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class LatencyHistogram:
    """Counts latencies; its memory does not grow."""

    def __init__(self) -> None:
        self._bins = np.zeros(BINS, np.int64)
        self._count = 0
        self._sum = self._max = 0.0

    def add(self, seconds: float) -> None:
        """Count one latency."""
        place = int(math.log(max(seconds, SMALLEST_S) / SMALLEST_S) / math.log(GROWTH))
        self._bins[min(place, BINS - 1)] += 1
        self._count += 1
        self._sum += seconds
        self._max = max(self._max, seconds)

    def summary(self) -> LatencySummary | None:
        """All latencies so far; None if there are none."""
        if not self._count:
            return None
        p50, p95, p99 = (self._quantile(share) for share in (0.5, 0.95, 0.99))
        return LatencySummary(self._count, self._sum / self._count, p50, p95, p99, self._max)

    def _quantile(self, share: float) -> float:
        """The geometric middle of the bin where `share` of the latencies is reached."""
        place = int(np.searchsorted(np.cumsum(self._bins), share * self._count))
        return float(min(SMALLEST_S * GROWTH ** (place + 0.5), self._max))
