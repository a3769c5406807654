"""A processor from sysfs: energy by RAPL, clocks, temperature, throttling and memory of the machine.

RAPL counts the energy of each package and of its memory (powercap: Documentation/power/powercap/powercap.rst). Linux
lets root alone read it (CVE-2020-8694), and most virtual machines do not have it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.telemetry.files import memory, read_integer, read_text
from perceiver_runtime.telemetry.rails import SYSFS
from perceiver_runtime.telemetry.sample import Sample

PROCFS = Path("/proc")
COUNTED = ("package", "dram")
"""Domains whose sum is the energy of processor and memory; others (core, uncore) are parts of a package."""
_CLOCKS = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
_GOVERNOR = "devices/system/cpu/cpu0/cpufreq/scaling_governor"
_THROTTLES = "devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
_REMEDY = "run it as root, or let this user read it: sudo chmod a+r /sys/class/powercap/*/energy_uj"


@dataclass
class _Domain:
    """One counter of microjoules, which restarts at `size`; `joules` is what it counted since it was opened."""

    name: str
    path: Path
    size: int
    last: int
    joules: float = 0.0

    def read(self) -> float:
        if (now := read_integer(self.path)) is not None:
            passed = now - self.last
            self.joules += (passed if passed >= 0 else passed + self.size) / 1e6
            self.last = now
        return self.joules


class Processor:
    """Samples of the processor. `description` names the counted RAPL domains."""

    def __init__(self, sysfs: Path = SYSFS, procfs: Path = PROCFS) -> None:
        self._procfs = procfs
        self._domains = _domains(sysfs)
        self._zones = {
            read_text(zone / "type"): zone / "temp" for zone in sorted(sysfs.glob("class/thermal/thermal_zone*"))
        }
        self._clocks = sorted(sysfs.glob(_CLOCKS))
        self._events = {path: read_integer(path) for path in sorted(sysfs.glob(_THROTTLES))}
        self._last: tuple[float, dict[str, float]] | None = None
        self.power_mode = read_text(sysfs / _GOVERNOR) or None
        self.description = f"RAPL: {', '.join(sorted(d.name for d in self._domains))}"

    def sample(self) -> Sample:
        """Read all sensors once; sensors that fail are omitted. `power` is the mean since the sample before."""
        now, joules = time.monotonic(), {domain.name: domain.read() for domain in self._domains}
        power: dict[str, float] = {}
        if self._last is not None and now > self._last[0]:
            then, before = self._last
            power = {name: (energy - before[name]) / (now - then) for name, energy in joules.items()}
        self._last = now, joules
        zones = {name: read_integer(path) for name, path in self._zones.items()}
        clocks = [clock for path in self._clocks if (clock := read_integer(path)) is not None]
        used, size = memory(self._procfs / "meminfo")
        return Sample(
            time=now,
            power=power,
            total_power=sum(power.values()) if power else None,
            energy=sum(joules.values()) if joules else None,
            temperature={name: milli / 1000 for name, milli in zones.items() if milli is not None},
            clock={"cpu": max(clocks) * 1e3} if clocks else {},
            memory_used=used,
            memory_total=size,
            throttled=tuple(
                sorted(
                    {path.name.removesuffix("_count") for path, n in self._events.items() if read_integer(path) != n}
                )
            ),
        )


def require_rapl(sysfs: Path = SYSFS) -> None:
    """Raise UnavailableError unless the energy of the processor can be read."""
    counters = [path for path in _counters(sysfs) if _counted(path.parent)]
    if counters and not _domains(sysfs):
        raise UnavailableError(f"power: expected readable RAPL energy counters, got no permission; {_REMEDY}")
    if not counters:
        raise UnavailableError(
            "power: expected RAPL energy counters (/sys/class/powercap), got none; a processor or virtual machine "
            "without them can't measure energy; measure on the machine itself"
        )


def _domains(sysfs: Path) -> tuple[_Domain, ...]:
    found = []
    for path in _counters(sysfs):
        last, size = read_integer(path), read_integer(path.parent / "max_energy_range_uj")
        if _counted(path.parent) and last is not None and size is not None:
            name = read_text(path.parent / "name")
            number = path.parent.name.split(":")[1]
            found.append(_Domain(name if name.startswith("package") else f"{name}-{number}", path, size, last))
    return tuple(found)


def _counters(sysfs: Path) -> list[Path]:
    return sorted(sysfs.glob("class/powercap/intel-rapl:*/energy_uj"))


def _counted(domain: Path) -> bool:
    return read_text(domain / "name").startswith(COUNTED)
