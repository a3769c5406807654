"""What a run spends its time on, as `Session.run(observe=...)` reports it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from perceiver_runtime.errors import UsageError


@dataclass(frozen=True)
class Activity:
    """One call of a component, one copy, or the wait for a turn.

    Attributes:
        kind: `copy in` and `copy out` are between the caller's arrays and the device, `copy` is on the device; `queue`
            is the wait until fewer runs execute than the backend executes at the same time.
        name: Component, or value that is copied.
        step: Position of the step in the pipeline's order of execution; None outside of steps.
        call: Number of the repetition or chunk of that step.
    """

    kind: Literal["component", "copy in", "copy out", "copy", "queue"]
    name: str
    step: int | None = None
    call: int | None = None


Observe = Callable[[Activity, float, float], None]
"""Called with the start and the end, in seconds of `time.perf_counter`; the device is synchronised around each."""
Record = Callable[[str, float], None]
"""Called with a component and the seconds of its call."""
QUEUE = Activity("queue", "queue")


def recording(record: Record | None, observe: Observe | None) -> Observe | None:
    """One function for both: `record` hears of component calls alone, `observe` of everything."""
    if record is None:
        return observe

    def call(activity: Activity, start: float, end: float) -> None:
        if activity.kind == "component":
            record(activity.name, end - start)
        if observe is not None:
            observe(activity, start, end)

    return call


class ObservedThreads:
    """Threads that are in a callback of a run: another run of theirs would wait for its own turn for ever."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def check(self) -> None:
        """Raise UsageError in a callback."""
        if threading.get_ident() in self._threads:
            raise UsageError("record, observe: expected a function that does not run the session, which waits for it")

    def guarded(self, observe: Observe | None) -> Observe | None:
        """The function, with its thread marked while it is called."""
        if observe is None:
            return None

        def call(activity: Activity, start: float, end: float) -> None:
            self._threads.add(threading.get_ident())
            try:
                observe(activity, start, end)
            finally:
                self._threads.discard(threading.get_ident())

        return call
