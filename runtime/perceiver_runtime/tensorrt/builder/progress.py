"""Progress of a build, seen through TensorRT's IProgressMonitor, and the way to stop it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from perceiver_runtime.progress import count


class Interruption:
    """An exception raised during a build, kept until the build has returned: none may pass TensorRT's C++ frames."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None

    def reraise(self) -> None:
        """Raise what was raised during the build, if anything."""
        if self.raised is not None:
            raise self.raised


def progress_monitor(trt: ModuleType, component: str, interruption: Interruption) -> Any:
    """An IProgressMonitor that reports the steps of each outermost phase to `perceiver_runtime.progress`.

    An exception of a handler, or KeyboardInterrupt, stops the build; it is kept in `interruption`.
    """
    outermost: dict[str, int] = {}

    def show(phase: str, done: int) -> None:
        if interruption.raised is not None:
            return
        try:
            if phase in outermost:
                count(f"{component}: {phase}", done, outermost[phase])
        except BaseException as error:
            interruption.raised = error

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                outermost[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            show(phase_name, step)
            return interruption.raised is None

        def phase_finish(self, phase_name: str) -> None:
            show(phase_name, outermost.get(phase_name, 0))
            outermost.pop(phase_name, None)

    return Monitor()
