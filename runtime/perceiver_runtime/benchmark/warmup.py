"""Warm-up: runs before the measured ones, until their times are stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

WINDOW_RUNS, WINDOW_SECONDS = 5, 0.1
STABLE = 0.05
MAX_SECONDS = 30.0


@dataclass(frozen=True)
class WarmUp:
    """Number of runs, and whether they became stable; None if their number was given."""

    runs: int
    stable: bool | None


def warm_up(run: Callable[[], object], runs: int | None = None, clock: Callable[[], float] = perf_counter) -> WarmUp:
    """Run until stable, or a given number of times.

    Runs are stable when the medians of two successive windows differ by at most 5%. A window has at least 5 runs and
    lasts at least 0.1 s. After 30 s the warm-up ends in any case, and is not stable.

    Args:
        run: One run.
        runs: Number of runs; None: until stable.
        clock: Seconds.

    Returns:
        What was done.
    """
    if runs is not None:
        for _ in range(runs):
            run()
        return WarmUp(runs, None)
    start, done, before = clock(), 0, None
    while True:
        times: list[float] = []
        window = clock()
        while len(times) < WINDOW_RUNS or clock() - window < WINDOW_SECONDS:
            begin = clock()
            if begin - start >= MAX_SECONDS:
                return WarmUp(done, False)
            run()
            times.append(clock() - begin)
            done += 1
        now = median(times)
        if before is not None and abs(now - before) <= STABLE * before:
            return WarmUp(done, True)
        before = now
