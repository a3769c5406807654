"""Sensors of a Jetson from sysfs and procfs, without root or tegrastats: rails, thermal zones, clocks and memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

from perceiver_runtime.telemetry.files import memory, read_integer, read_text
from perceiver_runtime.telemetry.rails import SYSFS, Rail, find_rails, total
from perceiver_runtime.telemetry.sample import Sample

PROCFS = Path("/proc")
_MODE = re.compile(r"NV Power Mode: (\S+)")
_ALERTS = "class/hwmon/hwmon*/oc*_event_cnt"
"""Counters of over-current events: what the module throttles for (the `soctherm` monitor)."""


class Jetson:
    """Samples of a Jetson. `description` contains the model and the power mode (`nvpmodel -q`)."""

    def __init__(self, sysfs: Path = SYSFS, procfs: Path = PROCFS, power_mode: str | None = None) -> None:
        self._sysfs, self._procfs = sysfs, procfs
        self._rails = find_rails(sysfs)
        self._zones = {
            read_text(zone / "type"): zone / "temp" for zone in sorted(sysfs.glob("class/thermal/thermal_zone*"))
        }
        self._gpu = next(iter(sorted(sysfs.glob("class/devfreq/*gpu*"))), None)
        self._events = {path: read_integer(path) for path in sorted(sysfs.glob(_ALERTS))}
        model = read_text(procfs / "device-tree/model").strip("\0") or "Jetson"
        self.power_mode = power_mode if power_mode is not None else query_power_mode()
        self.description = f"{model}, power mode {self.power_mode or 'unknown'}"

    def sample(self) -> Sample:
        """Read all sensors once; sensors that fail are omitted."""
        power = {rail.name: watts for rail in self._rails if (watts := _watts(rail)) is not None}
        zones = {name: read_integer(path) for name, path in self._zones.items()}
        used, size = memory(self._procfs / "meminfo")
        clock = read_integer(self._gpu / "cur_freq") if self._gpu is not None else None
        return Sample(
            time=time.monotonic(),
            power=power,
            total_power=total(power),
            temperature={name: milli / 1000 for name, milli in zones.items() if milli is not None},
            clock={} if clock is None else {"gpu": float(clock)},
            memory_used=used,
            memory_total=size,
            throttled=tuple(sorted(path.name for path, count in self._events.items() if read_integer(path) != count)),
        )


def parse_power_mode(output: str) -> str | None:
    """The mode's name in what `nvpmodel -q` prints, such as `MAXN` or `25W`."""
    found = _MODE.search(output)
    return found[1] if found else None


def query_power_mode() -> str | None:
    """The current power mode; None if `nvpmodel` is missing or can't be run."""
    if (program := shutil.which("nvpmodel")) is None:
        return None
    try:
        done = subprocess.run([program, "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_power_mode(done.stdout)


def _watts(rail: Rail) -> float | None:
    try:
        return rail.power()
    except (OSError, ValueError):
        return None
