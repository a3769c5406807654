"""Sensors of a Jetson from sysfs and procfs, without root or tegrastats: rails, thermal zones, clocks and memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

from perceiver_runtime.telemetry.rails import SYSFS, Rail, find_rails, total
from perceiver_runtime.telemetry.sample import Sample

PROCFS = Path("/proc")
_MODE = re.compile(r"NV Power Mode: (\S+)")
_ALERTS = "class/hwmon/hwmon*/oc*_event_cnt"
"""Counters of over-current events: what the module throttles for (the `soctherm` monitor)."""
_KIBIBYTE = 1024


class Jetson:
    """Samples of a Jetson. `description` contains the model and the power mode (`nvpmodel -q`)."""

    def __init__(self, sysfs: Path = SYSFS, procfs: Path = PROCFS, power_mode: str | None = None) -> None:
        self._sysfs, self._procfs = sysfs, procfs
        self._rails = find_rails(sysfs)
        self._zones = {
            _text(zone / "type"): zone / "temp" for zone in sorted(sysfs.glob("class/thermal/thermal_zone*"))
        }
        self._gpu = next(iter(sorted(sysfs.glob("class/devfreq/*gpu*"))), None)
        self._events = {path: _integer(path) for path in sorted(sysfs.glob(_ALERTS))}
        model = _text(procfs / "device-tree/model").strip("\0") or "Jetson"
        mode = power_mode if power_mode is not None else query_power_mode()
        self.description = f"{model}, power mode {mode or 'unknown'}"

    def sample(self) -> Sample:
        """Read all sensors once; sensors that fail are omitted."""
        power = {rail.name: watts for rail in self._rails if (watts := _watts(rail)) is not None}
        zones = {name: _integer(path) for name, path in self._zones.items()}
        used, size = _memory(self._procfs / "meminfo")
        clock = _integer(self._gpu / "cur_freq") if self._gpu is not None else None
        return Sample(
            time=time.monotonic(),
            power=power,
            total_power=total(power),
            temperature={name: milli / 1000 for name, milli in zones.items() if milli is not None},
            clock={} if clock is None else {"gpu": float(clock)},
            memory_used=used,
            memory_total=size,
            throttled=tuple(sorted(path.name for path, count in self._events.items() if _integer(path) != count)),
        )


def parse_power_mode(output: str) -> str | None:
    """The mode's name in what `nvpmodel -q` prints, such as `MAXN` or `25W`."""
    found = _MODE.search(output)
    return found[1] if found else None


def query_power_mode() -> str | None:
    """The current power mode; None if `nvpmodel` is missing or can't be run."""
    if (program := shutil.which("nvpmodel")) is None:
        return None
    done = subprocess.run([program, "-q"], capture_output=True, text=True, timeout=10, check=False)
    return parse_power_mode(done.stdout)


def _watts(rail: Rail) -> float | None:
    try:
        return rail.power()
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _memory(meminfo: Path) -> tuple[int | None, int | None]:
    """Used and total bytes: total less what is available."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", _text(meminfo), re.MULTILINE))
    if "MemTotal" not in fields or "MemAvailable" not in fields:
        return None, None
    size = int(fields["MemTotal"])
    return (size - int(fields["MemAvailable"])) * _KIBIBYTE, size * _KIBIBYTE
