"""A build's progress, seen through TensorRT's IProgressMonitor, and the way to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class BuildProgress:
    """One finished step of a phase: `step` of `steps` in `phase`, `depth` levels below the outermost phase."""

    phase: str
    step: int
    steps: int
    depth: int


Report = Callable[[BuildProgress], None]


def silent(_: BuildProgress) -> None:
    """Report nothing."""


class Interruption:
    """What a reporter raised: an exception must not travel through TensorRT's frames, so it waits here."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None

    def reraise(self) -> None:
        """Raise what was raised during the build, if anything."""
        if self.raised is not None:
            raise self.raised


def progress_monitor(trt: ModuleType, report: Report, interruption: Interruption) -> Any:
    """An IProgressMonitor that reports each step. A reporter that raises (KeyboardInterrupt, say) stops the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[int, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            depth = self.phases[parent_phase][1] + 1 if parent_phase in self.phases else 0
            self.phases[phase_name] = (num_steps, depth)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if interruption.raised is None:
                steps, depth = self.phases.get(phase_name, (0, 0))
                try:
                    report(BuildProgress(phase_name, step + 1, steps, depth))
                except BaseException as error:
                    interruption.raised = error
            return interruption.raised is None

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

    return Monitor()
