"""Load of other programs on the machine during a measurement."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from perceiver_runtime.errors import CheckError

STAT = Path("/proc/stat")
IDLE_FIELDS = (3, 4, 8, 9)
"""Fields of a line of /proc/stat (proc(5)): idle, iowait, and guest times, which user and nice include."""
MAX_SHARE = 0.05
"""Share of the machine's cores that others may use before a measurement counts as disturbed."""


@dataclass(frozen=True)
class OtherLoad:
    """Cores that other programs, or other guests of the host, used on average, of `available` ones."""

    cores: float
    available: int

    @property
    def disturbs(self) -> bool:
        """Whether times measured under this load are unreliable."""
        return self.cores > MAX_SHARE * self.available

    def __str__(self) -> str:
        return f"other programs used {self.cores:.1f} of {self.available} cores"


def require_idle(others: OtherLoad | None, warn: Callable[[str], None], *, strict: bool) -> None:
    """Warn of a disturbed measurement; if `strict`, raise CheckError for one, or for an unknown load."""
    problem = "the load of other programs is not known here" if others is None and strict else ""
    if others is not None and others.disturbs:
        problem = f"{others} during the measurement: its times are in doubt; run it on an idle machine"
    if problem and strict:
        raise CheckError(problem)
    if problem:
        warn(f"warning: {problem}")


class LoadMeter:
    """Measures the load of other programs from its construction to `read`."""

    def __init__(self) -> None:
        self._start = perf_counter(), _busy_seconds(), _own_seconds()

    def read(self) -> OtherLoad | None:
        """The average so far; None if the system does not report it (no /proc/stat)."""
        wall, busy, own = self._start
        now = _busy_seconds()
        if busy is None or now is None:
            return None
        others = (now - busy) - (_own_seconds() - own)
        return OtherLoad(max(0.0, others / (perf_counter() - wall)), os.cpu_count() or 1)


def _busy_seconds() -> float | None:
    """CPU time of all cores that was not idle since the machine started, with a resolution of 10 ms."""
    try:
        _, *fields = STAT.read_text(encoding="ascii").partition("\n")[0].split()
        ticks = [int(field) for field in fields]
    except (OSError, ValueError):
        return None
    return sum(t for i, t in enumerate(ticks) if i not in IDLE_FIELDS) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
