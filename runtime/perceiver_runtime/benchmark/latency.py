"""Measure the latency of a session: complete runs, components, and the overhead between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from perceiver_runtime.benchmark.load import LoadMeter
from perceiver_runtime.benchmark.memory import MemoryMeter
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.benchmark.warmup import warm_up
from perceiver_runtime.conditions import conditions_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.golden import load_golden
from perceiver_runtime.progress import track
from perceiver_runtime.tensors import Array, TensorSpec

MILLISECONDS = 1e3


def measure(
    session: Session,
    feeds: Mapping[str, Array] | None = None,
    batch: int = 1,
    warmup: int | None = None,
    iterations: int = 100,
) -> LatencyReport:
    """Measure the latency of a session.

    Args:
        session: An open session.
        feeds: Inputs by name, cut or repeated along the dimension `batch`; None takes the first golden sample.
        batch: Rows per run.
        warmup: Runs before the measured ones; None: until times are stable (see `benchmark.warmup.warm_up`).
        iterations: Measured runs.

    Returns:
        Latency in milliseconds.

    Raises:
        UsageError: A count is too small, or the bundle does not take this batch.
        FeedError: The feeds do not match the inputs.
    """
    if batch < 1 or (warmup is not None and warmup < 0) or iterations < 1:
        raise UsageError(
            "batch (--batch), warmup (--warmup), iterations (--iterations): expected at least 1, 0 and 1, got "
            f"{batch}, {warmup}, {iterations}"
        )
    sized = sized_feeds(session, feeds if feeds is not None else load_golden(session.bundle)[0].feeds, batch)
    conditions = conditions_of(session)
    warm = warm_up(lambda: session.run(sized), warmup)
    meter, memory = LoadMeter(), MemoryMeter()
    start = perf_counter()
    total = Distribution.of([_time(session, sized) for _ in track(range(iterations), "measure")])
    seconds = perf_counter() - start
    components, overhead = _split(session, sized, iterations)
    return LatencyReport(
        total=total,
        components=components,
        overhead=overhead,
        batch=batch,
        warmup=warm.runs,
        iterations=iterations,
        backend=session.backend,
        threads=session.threads,
        machine=conditions.machine,
        versions=conditions.versions,
        others=meter.read(),
        reason=session.reason,
        conditions=conditions,
        throughput=batch * iterations / seconds,
        stable=warm.stable,
        memory=memory.read(session),
        energy=NotMeasured("not asked for"),
    )


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


def _time(session: Session, feeds: Mapping[str, Array]) -> float:
    start = perf_counter()
    session.run(feeds)
    return (perf_counter() - start) * MILLISECONDS


def _split(
    session: Session, feeds: Mapping[str, Array], iterations: int
) -> tuple[dict[str, Distribution], Distribution]:
    """Milliseconds of each component in one run, and of the rest of the run."""
    components: defaultdict[str, list[float]] = defaultdict(list)
    overheads = []
    for _ in track(range(iterations), "measure components"):
        spent, total = _time_applications(session, feeds)
        overheads.append((total - sum(spent.values())) * MILLISECONDS)
        for name, seconds in spent.items():
            components[name].append(seconds * MILLISECONDS)
    return {name: Distribution.of(times) for name, times in components.items()}, Distribution.of(overheads)


def _time_applications(session: Session, feeds: Mapping[str, Array]) -> tuple[dict[str, float], float]:
    """Seconds of each component in one run, and of the run."""
    spent: defaultdict[str, float] = defaultdict(float)

    def record(component: str, seconds: float) -> None:
        spent[component] += seconds

    start = perf_counter()
    session.run(feeds, record=record)
    return dict(spent), perf_counter() - start
