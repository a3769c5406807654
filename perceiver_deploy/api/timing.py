"""Times of several calls in one interleaved run, and their ratios with an interval.

Machines drift by several per cent within minutes, so calls are timed in turn and compared by the median of the ratios
of neighbouring runs, never by two medians taken at different times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from perceiver_runtime.errors import UsageError
from perceiver_runtime.progress import track

Call = Callable[[], object]
Name = TypeVar("Name")
RESAMPLES = 2000
LEVEL = 95


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of neighbouring runs, with its 95% interval (percentile bootstrap over the rounds)."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def interleave(calls: Mapping[Name, Call], rounds: int, warmup: int = 2) -> dict[Name, tuple[float, ...]]:
    """Milliseconds of each call in each round, after `warmup` unmeasured rounds.

    Every other round goes backwards, so that no call always follows the same one.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for index in track(range(rounds), f"time {len(calls)} in turn"):
        for name in list(calls)[:: -1 if index % 2 else 1]:
            times[name].append(milliseconds(calls[name]))
    return {name: tuple(each) for name, each in times.items()}


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Ratio:
    """Compare two calls of one `interleave`. Raises UsageError for series of unequal length or less than two rounds."""
    if len(numerators) != len(denominators) or len(numerators) < 2:
        raise UsageError(
            f"ratio of {len(numerators)} and {len(denominators)} rounds; expected equally many, at least 2"
        )
    ratios = np.array(numerators) / np.array(denominators)
    draws = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(np.median(ratios[draws], axis=1), (tail, 100 - tail))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def milliseconds(call: Call) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
