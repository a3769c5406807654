"""Measure the latency of a session: complete runs, components, and the overhead between them."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import machine
from perceiver_runtime.measure.load import LoadMeter, OtherLoad
from perceiver_runtime.progress import track
from perceiver_runtime.tensors import Array, TensorSpec

MILLISECONDS = 1e3


@dataclass(frozen=True)
class Distribution:
    """Percentiles and mean, in the unit of the samples; `samples` are in the order of measurement."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Distribution:
        """Summarise at least one sample; percentiles are interpolated linearly."""
        p50, p90, p95, p99 = (float(p) for p in np.percentile(samples, (50, 90, 95, 99)))
        return cls(p50, p90, p95, p99, float(np.mean(samples)), tuple(samples))


@dataclass(frozen=True)
class LatencyReport:
    """Latency of `Session.run` in milliseconds, from arrays in host memory to arrays in host memory.

    Attributes:
        total: Complete runs.
        components: All calls of each component in a run, from a second series of as many runs with timers inside.
        overhead: The rest of those runs: checks, copies, calls.
        batch: Rows per run.
        warmup: Runs before the measured ones.
        iterations: Measured runs of each series.
        backend: Name of the backend.
        threads: Number of CPU threads, or None.
        machine: Processor or board, cores, and operating system.
        versions: Versions of Python, NumPy and the backend's libraries.
        others: Load of other programs during the measurement; None if not known.
        reason: Why the backend was chosen.
    """

    total: Distribution
    components: Mapping[str, Distribution]
    overhead: Distribution
    batch: int
    warmup: int
    iterations: int
    backend: str
    threads: int | None
    machine: str
    versions: Mapping[str, str]
    others: OtherLoad | None = None
    reason: str = ""


def measure(
    session: Session, feeds: Mapping[str, Array] | None = None, batch: int = 1, warmup: int = 10, iterations: int = 100
) -> LatencyReport:
    """Measure the latency of a session.

    Args:
        session: An open session.
        feeds: Inputs by name, cut or repeated along the dimension `batch`; None takes the first golden sample.
        batch: Rows per run.
        warmup: Runs before the measured ones.
        iterations: Measured runs.

    Returns:
        Latency in milliseconds.

    Raises:
        UsageError: A count is too small, or the bundle does not take this batch.
        FeedError: The feeds do not match the inputs.
    """
    if batch < 1 or warmup < 0 or iterations < 1:
        raise UsageError(
            "batch (--batch), warmup (--warmup), iterations (--iterations): expected at least 1, 0 and 1, got "
            f"{batch}, {warmup}, {iterations}"
        )
    sized = sized_feeds(session, feeds if feeds is not None else load_golden(session.bundle)[0].feeds, batch)
    for _ in range(warmup):
        session.run(sized)
    meter = LoadMeter()
    total = Distribution.of([_time(session, sized) for _ in track(range(iterations), "measure")])
    components, overhead = _split(session, sized, iterations)
    return LatencyReport(
        total=total,
        components=components,
        overhead=overhead,
        batch=batch,
        warmup=warmup,
        iterations=iterations,
        backend=session.backend,
        threads=session.threads,
        machine=machine(),
        versions={"python": platform.python_version(), "numpy": np.__version__, **session.versions},
        others=meter.read(),
        reason=session.reason,
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
