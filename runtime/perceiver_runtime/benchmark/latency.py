"""Measure the latency of a session: complete runs, components, and the overhead between them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Protocol, runtime_checkable

import numpy as np

from perceiver_runtime.benchmark.energy import MIN_SECONDS, PowerMeter
from perceiver_runtime.benchmark.load import LoadMeter
from perceiver_runtime.benchmark.loops import MAX_RUNS, OpenLoop, Run, closed_loop, elapsed, open_loop
from perceiver_runtime.benchmark.memory import MemoryMeter
from perceiver_runtime.benchmark.report import CallersReport, Graphs, LatencyReport, NotMeasured
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.benchmark.trace import Observed, Trace, TracedSeries
from perceiver_runtime.benchmark.warmup import warm_up
from perceiver_runtime.conditions import conditions_of, unit_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.golden import load_golden
from perceiver_runtime.progress import report
from perceiver_runtime.tensors import Array, TensorSpec

ITERATIONS = 100
MAX_CALLERS = 256


@runtime_checkable
class HasGraphs(Protocol):
    """A device that knows whether what ran on it is launched as CUDA graphs."""

    def cuda_graphs(self) -> Graphs:
        """The state."""


def measure(
    session: Session,
    feeds: Mapping[str, Array] | None = None,
    batch: int = 1,
    warmup: int | None = None,
    iterations: int | None = None,
    *,
    duration: float = 0.0,
    callers: Sequence[int] = (),
    rate: float | None = None,
    power: bool = False,
    trace: Trace | None = None,
) -> LatencyReport:
    """Measure the latency of a session.

    Every series has at least `iterations` runs and lasts at least `duration` seconds, up to 200,000 runs: complete
    runs of one caller; as many with timers around each component; those of several callers; those at a fixed rate.

    Args:
        session: An open session.
        feeds: Inputs by name, cut or repeated along the dimension `batch`; None takes the first golden sample.
        batch: Rows per run.
        warmup: Runs before the measured ones; None: until times are stable (see `benchmark.warmup.warm_up`).
        iterations: Smallest number of measured runs; None: 100, or 1 if a duration is given.
        duration: Shortest duration of a series in seconds.
        callers: Numbers of concurrent callers to measure, besides one.
        rate: Requests per second that arrive whether or not earlier ones are answered (open loop).
        power: Measure energy: idle power before, then that of the complete runs, for at least 5 s.
        trace: Takes up to 100 runs of each series, their components, copies and waits.

    Returns:
        Latency in milliseconds.

    Raises:
        UsageError: A number is out of range, or the bundle does not take this batch.
        FeedError: The feeds do not match the inputs.
        UnavailableError: Power can't be measured on this machine.
    """
    least = iterations if iterations is not None else 1 if duration else ITERATIONS
    _check(batch, warmup, least, duration, callers, rate)
    sized = sized_feeds(session, feeds if feeds is not None else load_golden(session.bundle)[0].feeds, batch)
    conditions = conditions_of(session)
    series = _Series(session, sized, batch, least, duration, trace)
    meter = PowerMeter.of(session) if power else None
    warm = warm_up(partial(session.run, sized), warmup)
    load, memory = LoadMeter(), MemoryMeter()
    with meter.recording() if meter is not None else nullcontext():
        times = closed_loop(series.run, least, max(duration, MIN_SECONDS) if power else duration)
    components, overhead = series.components(len(times))
    levels = tuple(series.concurrent(number) for number in callers)
    loop = series.at_rate(rate, max(callers, default=session.concurrency)) if rate is not None else None
    energy = meter.energy(batch * len(times)) if meter is not None else NotMeasured("not asked for (--power)")
    return LatencyReport(
        total=Distribution.of([each.milliseconds for each in times]),
        components=components,
        overhead=overhead,
        batch=batch,
        warmup=warm.runs,
        iterations=len(times),
        backend=session.backend,
        threads=session.threads,
        machine=conditions.machine,
        versions=conditions.versions,
        others=load.read(),
        reason=session.reason,
        conditions=conditions,
        throughput=batch * len(times) / elapsed(times),
        stable=warm.stable,
        memory=memory.read(session),
        energy=energy,
        cuda_graphs=cuda_graphs(session),
        callers=levels,
        open_loop=loop.report() if loop is not None else None,
    )


class _Series:
    """Series of runs of one session on the same feeds."""

    def __init__(
        self, session: Session, feeds: Mapping[str, Array], batch: int, least: int, duration: float, trace: Trace | None
    ) -> None:
        self._session, self._feeds, self._batch = session, feeds, batch
        self._least, self._duration, self._trace = least, duration, trace

    def run(self, caller: int, number: int) -> None:
        """One run."""
        self._session.run(self._feeds)

    def components(self, iterations: int) -> tuple[dict[str, Distribution], Distribution]:
        """Milliseconds of each component in one run, and of the rest of the run."""
        report("measure components")
        traced = self._traced("components")
        components: defaultdict[str, list[float]] = defaultdict(list)
        overheads: list[float] = []

        def run(caller: int, number: int) -> None:
            observed: list[Observed] = []
            start = perf_counter()
            self._session.run(self._feeds, observe=lambda *each: observed.append(each))
            total = perf_counter() - start
            spent: defaultdict[str, float] = defaultdict(float)
            for activity, begin, end in observed:
                if activity.kind == "component":
                    spent[activity.name] += end - begin
            overheads.append((total - sum(spent.values())) * 1e3)
            for name, seconds in spent.items():
                components[name].append(seconds * 1e3)
            if traced is not None:
                traced.add(number, observed)

        times = closed_loop(run, iterations)
        if traced is not None:
            traced.close(times)
        return {name: Distribution.of(each) for name, each in components.items()}, Distribution.of(overheads)

    def concurrent(self, callers: int) -> CallersReport:
        """A closed loop of several callers."""
        report(f"measure {callers} concurrent callers")
        traced = self._traced(f"{callers} callers")
        times = closed_loop(self._observed(traced), max(self._least, callers), self._duration, callers)
        if traced is not None:
            traced.close(times)
        seconds = elapsed(times)
        latency = Distribution.of([each.milliseconds for each in times])
        return CallersReport(callers, len(times), seconds, self._batch * len(times) / seconds, latency)

    def at_rate(self, rate: float, callers: int) -> OpenLoop:
        """An open loop."""
        requests = max(self._least, math.ceil(rate * self._duration))
        report(f"measure {requests} requests, {rate:g} per second")
        traced = self._traced(f"{rate:g} requests per second")
        loop = open_loop(self._observed(traced), rate, requests, callers)
        if traced is not None:
            traced.close(loop.answered, loop)
        return loop

    def _traced(self, name: str) -> TracedSeries | None:
        return self._trace.series(f"batch {self._batch}: {name}") if self._trace is not None else None

    def _observed(self, traced: TracedSeries | None) -> Run:
        if traced is None:
            return self.run
        return lambda _caller, number: traced.run(self._session, self._feeds, number)


def sized_feeds(session: Session, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Feeds of `batch` rows, cut or repeated. Raises UsageError for a batch that no profile of the bundle takes."""
    allowed = [profile.dimensions[BATCH] for profile in session.manifest.profiles if BATCH in profile.dimensions]
    if batch < 1 or (allowed and not any(batch in sizes for sizes in allowed)):
        ranges = " or ".join(f"{sizes.min} to {sizes.max}" for sizes in allowed) or "at least 1"
        raise UsageError(f"batch (--batch): this bundle takes {ranges}, got {batch}")
    specs = {spec.name: spec for spec in session.inputs}
    if batch != 1 and not any(BATCH in spec.shape for spec in session.inputs):
        raise UsageError(f"batch (--batch): this bundle has no dimension {BATCH!r} and takes 1, got {batch}")
    return {name: _tile(specs[name], array, batch) if name in specs else array for name, array in feeds.items()}


def _tile(spec: TensorSpec, array: Array, batch: int) -> Array:
    if BATCH not in spec.shape or array.ndim != spec.rank:
        return array
    axis = spec.shape.index(BATCH)
    rows: Array = np.take(array, np.arange(batch) % array.shape[axis], axis=axis)
    return rows


def _check(
    batch: int, warmup: int | None, iterations: int, duration: float, callers: Sequence[int], rate: float | None
) -> None:
    if batch < 1 or (warmup is not None and warmup < 0) or iterations < 1:
        raise UsageError(
            "batch (--batch), warmup (--warmup), iterations (--iterations): expected at least 1, 0 and 1, got "
            f"{batch}, {warmup}, {iterations}"
        )
    if iterations > MAX_RUNS:
        raise UsageError(f"iterations (--iterations): expected at most {MAX_RUNS}, got {iterations}")
    if not 0 <= duration < math.inf:
        raise UsageError(f"duration (--duration): expected seconds from 0, got {duration}")
    if wrong := [number for number in callers if not 1 <= number <= MAX_CALLERS]:
        raise UsageError(f"callers (--concurrency): expected numbers of 1 to {MAX_CALLERS}, got {wrong[0]}")
    if rate is None:
        return
    if not 0 < rate < math.inf:
        raise UsageError(f"rate (--rate): expected requests per second above 0, got {rate}")
    if rate * duration > MAX_RUNS:
        raise UsageError(
            f"rate (--rate) x duration (--duration): expected at most {MAX_RUNS} requests, got {rate * duration:.0f}"
        )


def cuda_graphs(session: Session) -> Graphs:
    """Whether the session's components are launched as CUDA graphs."""
    if unit_of(session.backend) == "processor":
        return "not applicable"
    return session.device.cuda_graphs() if isinstance(session.device, HasGraphs) else "off"
