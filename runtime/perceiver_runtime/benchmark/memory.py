"""Peak memory of this process, and used memory of its device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from perceiver_runtime.benchmark.report import Memory
from perceiver_runtime.execution.session import Session

SELF = Path("/proc/self")
RESET_PEAK = "5"
"""What resets VmHWM when it is written to clear_refs (proc_pid_clear_refs(5))."""


@runtime_checkable
class CountsMemory(Protocol):
    """A device that knows how much of its memory is used."""

    def used_bytes(self) -> int:
        """Used bytes, by all programs."""


class MemoryMeter:
    """Measures the peak from its construction to `read`; the process's own since its start where it can't be reset."""

    def __init__(self) -> None:
        self._covers: Literal["measurement", "process"] = "measurement" if _reset() else "process"

    def read(self, session: Session) -> Memory:
        """The peak so far, and what the device of the session uses now."""
        device = session.device.used_bytes() if isinstance(session.device, CountsMemory) else None
        return Memory(_peak(), self._covers, device)


def _reset() -> bool:
    try:
        (SELF / "clear_refs").write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _peak() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", (SELF / "status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
