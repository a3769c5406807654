"""A clock that moves only when the loop waits or its model runs, and the frames that arrive meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from perceiver_runtime.loop import Clock, Loop


class SimulatedClock(Clock):
    """Pushes frame i at i / rate seconds into `loop`, and stops it after the last."""

    def __init__(self, rate_hz: float, frames: int) -> None:
        self.time, self.rate_hz, self.frames, self.pushed = 0.0, rate_hz, frames, 0
        self.loop: Loop | None = None

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        arrival = self.pushed / self.rate_hz
        self.pass_until(arrival if timeout_s is None else min(arrival, self.time + timeout_s))

    def pass_until(self, end: float) -> None:
        assert self.loop is not None
        while (arrival := self.pushed / self.rate_hz) <= end:
            self.time = max(self.time, arrival)
            if self.pushed == self.frames:
                self.loop.stop()
                break
            self.loop.push({"frame": self.pushed}, arrival)
            self.pushed += 1
        self.time = max(self.time, end)


class SimulatedModel:
    """Takes `seconds` of the clock."""

    def __init__(self, clock: SimulatedClock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.clock.pass_until(self.clock.time + self.seconds)
        return dict(feeds)
