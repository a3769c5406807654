"""Record telemetry in the background, and integrate its power."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from perceiver_runtime.telemetry.sample import Sample, Source

INTERVAL = 0.1


@dataclass(frozen=True)
class Summary:
    """Telemetry of a benchmark. Energy in joules, power in watts, temperature in degrees Celsius, memory in bytes.

    `energy` is what the device's counter of energy counted, else the integral of its total power over time; None if it
    measures neither. `lowest_clock` is the GPU's where there is one, else the processor's, in hertz.
    """

    source: str
    seconds: float
    samples: int
    energy: float | None
    mean_power: float | None
    peak_power: float | None
    peak_temperature: float | None
    lowest_clock: float | None
    peak_memory: int | None
    throttled: tuple[str, ...]


@dataclass
class Recording:
    """Samples so far. Grows in the background until its `record` block ends."""

    source: str
    samples: list[Sample] = field(default_factory=list)

    def summary(self) -> Summary:
        """Figures over everything recorded."""
        samples = tuple(self.samples)
        seconds = samples[-1].time - samples[0].time if samples else 0.0
        energy = _energy(samples)
        powers = [s.total_power for s in samples if s.total_power is not None]
        return Summary(
            source=self.source,
            seconds=seconds,
            samples=len(samples),
            energy=energy,
            mean_power=energy / seconds if energy is not None and seconds else None,
            peak_power=max(powers, default=None),
            peak_temperature=max((t for s in samples for t in s.temperature.values()), default=None),
            lowest_clock=_lowest_clock(samples),
            peak_memory=max((s.memory_used for s in samples if s.memory_used is not None), default=None),
            throttled=tuple(sorted({reason for s in samples for reason in s.throttled})),
        )


@contextmanager
def record(source: Source, interval: float = INTERVAL) -> Iterator[Recording]:
    """Sample every `interval` seconds, and once at each end, while the block runs.

    Args:
        source: Source of the samples.
        interval: Seconds between two samples.

    Yields:
        The recording, which grows until the block ends.

    Raises:
        Exception: Whatever the source raised; it ends the recording and is raised when the block ends.
    """
    recording, stop, failed = Recording(source.description), threading.Event(), list[Exception]()

    def work() -> None:
        try:
            while not stop.wait(interval):
                recording.samples.append(source.sample())
        except Exception as error:
            failed.append(error)

    recording.samples.append(source.sample())
    thread = threading.Thread(target=work, name="telemetry", daemon=True)
    thread.start()
    try:
        yield recording
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
    recording.samples.append(source.sample())


def _energy(samples: tuple[Sample, ...]) -> float | None:
    """Difference of the counter, or trapezoidal integral over samples with a known total power."""
    counted = [s.energy for s in samples if s.energy is not None]
    if len(counted) == len(samples) > 1:
        return counted[-1] - counted[0]
    known = [(s.time, s.total_power) for s in samples if s.total_power is not None]
    if len(known) < 2:
        return None
    return sum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(known))


def _lowest_clock(samples: tuple[Sample, ...]) -> float | None:
    for unit in ("gpu", "cpu"):
        if clocks := [s.clock[unit] for s in samples if unit in s.clock]:
            return min(clocks)
    return None
