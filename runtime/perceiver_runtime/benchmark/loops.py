"""Closed and open loops: the times of calls, from one thread or several."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from perceiver_runtime.benchmark.report import OpenLoopReport
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.progress import count

MAX_RUNS = 200_000
SUSTAINED = 0.95
MIN_DRAIN = 1.0
_SPIN = 2e-4
"""Seconds before an arrival that are waited for actively: a sleep ends that much too late."""
Run = Callable[[int, int], object]
"""Runs once; gets the number of the caller and that of the run."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of `perf_counter` of one answered call; `arrival` is when it was scheduled, in an open loop."""

    number: int
    caller: int
    start: float
    end: float
    arrival: float | None = None

    @property
    def milliseconds(self) -> float:
        """From its start to its end."""
        return (self.end - self.start) * 1e3


def closed_loop(run: Run, iterations: int, duration: float = 0.0, callers: int = 1) -> tuple[Times, ...]:
    """Let each of several callers run again as soon as it has its answer.

    Args:
        run: One run.
        iterations: Smallest number of runs of all callers.
        duration: Seconds from a caller's first start to its last end, at least.
        callers: Number of threads; one runs in this thread.

    Returns:
        Times of all runs, in the order of their starts: at most `MAX_RUNS`.
    """
    numbers = itertools.count()
    total = iterations if not duration else None

    def work(caller: int, stop: threading.Event) -> list[Times]:
        done: list[Times] = []
        while not stop.is_set():
            number = next(numbers)
            lasted = not duration or (done and done[-1].end - done[0].start >= duration)
            if number >= MAX_RUNS or (number >= iterations and lasted):
                break
            if caller == 0:
                count("measure", number, total)
            start = perf_counter()
            run(caller, number)
            done.append(Times(number, caller, start, perf_counter()))
        return done

    return _all(work, callers)


def elapsed(times: tuple[Times, ...]) -> float:
    """Seconds from the first start to the last end."""
    return max(each.end for each in times) - times[0].start


@dataclass(frozen=True)
class OpenLoop:
    """Answered requests of an open loop, in order, and when the others were given up."""

    rate: float
    requests: int
    callers: int
    begin: float
    ended: float
    answered: tuple[Times, ...]

    def arrival(self, number: int) -> float:
        """When a request was scheduled."""
        return self.begin + number / self.rate

    def depth(self, each: Times) -> int:
        """Requests that had arrived and not started when this one started."""
        arrived = min(self.requests, math.floor((each.start - self.begin) * self.rate) + 1)
        return max(0, arrived - each.number - 1)

    def report(self) -> OpenLoopReport:
        """Its figures."""
        got = {each.number for each in self.answered}
        missed = [self.ended - self.arrival(n) for n in range(self.requests) if n not in got]
        latencies = [each.end - self.arrival(each.number) for each in self.answered]
        waits = [each.start - self.arrival(each.number) for each in self.answered]
        ends = [each.end for each in self.answered] or [self.ended]
        spaces, span = len(ends) - 1, max(ends) - min(ends)
        achieved = spaces / span if spaces else len(self.answered) / (self.ended - self.begin)
        return OpenLoopReport(
            rate=self.rate,
            achieved=achieved,
            sustained=not missed and (self.requests == 1 or achieved >= SUSTAINED * self.rate),
            callers=self.callers,
            requests=self.requests,
            unanswered=len(missed),
            latency=_milliseconds(latencies + missed),
            waiting=_milliseconds(waits + missed),
            queue_depth=Distribution.of([self.depth(each) for each in self.answered] or [self.requests]),
        )


def open_loop(run: Run, rate: float, requests: int, callers: int) -> OpenLoop:
    """Start requests when they are scheduled, or as soon afterwards as one of the callers is free.

    Requests that have not started when the queue has drained for as long as the schedule lasted (at least 1 s) are
    given up.

    Args:
        run: One run.
        rate: Scheduled requests per second.
        requests: Number of requests.
        callers: Number of threads that answer.

    Returns:
        When each request arrived, started and was answered.
    """
    begin, numbers = perf_counter() + 10 * _SPIN, itertools.count()
    schedule = requests / rate
    deadline = begin + schedule + max(schedule, MIN_DRAIN)

    def work(caller: int, stop: threading.Event) -> list[Times]:
        done = []
        while not stop.is_set() and (number := next(numbers)) < requests and perf_counter() < deadline:
            arrival = begin + number / rate
            _wait_until(arrival)
            start = perf_counter()
            run(caller, number)
            done.append(Times(number, caller, start, perf_counter(), arrival))
        return done

    answered = _all(work, callers)
    return OpenLoop(rate, requests, callers, begin, perf_counter(), answered)


def _all(work: Callable[[int, threading.Event], list[Times]], callers: int) -> tuple[Times, ...]:
    """What all callers did. The first error of one ends the others, and is raised."""
    stop = threading.Event()
    if callers == 1:
        return tuple(work(0, stop))

    def guarded(caller: int) -> list[Times]:
        try:
            return work(caller, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(callers, thread_name_prefix="caller") as pool:
        done = list(pool.map(guarded, range(callers)))
    return tuple(sorted((each for own in done for each in own), key=lambda each: each.number))


def _wait_until(moment: float) -> None:
    if (left := moment - perf_counter()) > _SPIN:
        time.sleep(left - _SPIN)
    while perf_counter() < moment:
        pass


def _milliseconds(seconds: list[float]) -> Distribution:
    return Distribution.of([each * 1e3 for each in seconds])
