"""The time of a loop, and frames that come in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from perceiver_runtime.errors import UsageError


class Clock:
    """Time of a loop; tests replace it."""

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        """Wait until `condition`, which is held, is notified, or the time is over."""
        condition.wait(timeout_s)


def paced(frames: Iterable[Any], rate_hz: float, clock: Clock | None = None) -> Iterator[Any]:
    """Give recorded frames at the rate of a camera, none of them early.

    Args:
        frames: What to give.
        rate_hz: Frames per second.
        clock: Time.

    Yields:
        The frames.

    Raises:
        UsageError: The rate is not above 0.
    """
    if not 0 < rate_hz < float("inf"):
        raise UsageError(f"rate_hz: expected a number above 0, got {rate_hz}")
    time_of = clock or Clock()
    waiting, started = threading.Condition(), time_of.now()
    for index, frame in enumerate(frames):
        with waiting:
            while (left := started + index / rate_hz - time_of.now()) > 0:
                time_of.wait(waiting, left)
        yield frame
