"""Energy of a series of runs, from the rails of a Jetson, NVML or RAPL. It is never estimated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from perceiver_runtime.benchmark.report import Energy
from perceiver_runtime.conditions import unit_of
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.progress import report
from perceiver_runtime.telemetry.jetson import Jetson
from perceiver_runtime.telemetry.recorder import Recording, Summary, record
from perceiver_runtime.telemetry.sample import Source
from perceiver_runtime.telemetry.sources import open_source

IDLE_SECONDS = 2.0
MIN_SECONDS = 5.0
"""Shortest series: rails and NVML average the power over a tenth of a second to a second."""


class PowerMeter:
    """Measures the idle power once, then that of runs. Raises UnavailableError where power can't be measured."""

    def __init__(self, source: Source, seconds: float = IDLE_SECONDS) -> None:
        self._source = source
        report(f"measure idle power for {seconds:g} s")
        with record(source) as idle:
            time.sleep(seconds)
        self._idle = _watts(idle.summary())
        self._recording: Recording | None = None

    @classmethod
    def of(cls, session: Session) -> PowerMeter:
        """The meter of what a session runs on."""
        return cls(open_source(unit_of(session.backend)))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs."""
        with record(self._source) as self._recording:
            yield

    def energy(self, inferences: int) -> Energy:
        """Energy of the recorded block, in which so many rows were computed."""
        assert self._recording is not None
        summary = self._recording.summary()
        watts = _watts(summary)
        return Energy(
            joules_per_inference=watts * summary.seconds / inferences,
            net_joules_per_inference=(watts - self._idle) * summary.seconds / inferences,
            mean_watts=watts,
            idle_watts=self._idle,
            peak_watts=summary.peak_power,
            seconds=summary.seconds,
            inferences=inferences,
            source=summary.source,
            peak_temperature=summary.peak_temperature,
            lowest_clock=summary.lowest_clock,
            throttled=summary.throttled,
            unified_memory=summary.peak_memory if isinstance(self._source, Jetson) else None,
        )


def _watts(summary: Summary) -> float:
    if summary.mean_power is None:
        raise UnavailableError(
            f"power: expected {summary.source} to measure power, got none; this device has no readable power sensor"
        )
    return summary.mean_power
