"""What a run spends its time on, as `Session.run(observe=...)` reports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


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
