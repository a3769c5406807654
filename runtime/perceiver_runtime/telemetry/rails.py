"""Power rails of a Jetson from sysfs: INA3221 and INA238 monitors, volts times amperes, read without root or jtop."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
_MONITORS = "bus/i2c/devices/*/hwmon/hwmon*"
_LABEL = re.compile(r"in(\d+)_label$")
NOT_CONNECTED = "NC"
_INPUTS = ("VDD_IN", "VIN")
"""Rails through which everything flows (Orin NX and Nano, Thor): where there is one, it is the device's total."""
_WITHIN = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""Rails that are fed from another measured rail (AGX Orin): they count once."""


@dataclass(frozen=True)
class Rail:
    """One measured rail: `power()` is millivolts times milliamperes."""

    name: str
    voltage: Path
    current: Path

    def power(self) -> float:
        """Watts now. Raises OSError if the monitor does not answer."""
        return int(self.voltage.read_text()) * int(self.current.read_text()) / 1e6


def find_rails(sysfs: Path = SYSFS) -> tuple[Rail, ...]:
    """All connected rails of all monitors, by name."""
    found = []
    for monitor in sorted(sysfs.glob(_MONITORS)):
        for label in sorted(monitor.glob("in*_label")):
            if (match := _LABEL.search(label.name)) is None:
                continue
            name = label.read_text().strip()
            rail = Rail(name, monitor / f"in{match[1]}_input", monitor / f"curr{match[1]}_input")
            if name and name != NOT_CONNECTED and rail.voltage.is_file() and rail.current.is_file():
                found.append(rail)
    return tuple(sorted(found, key=lambda rail: rail.name))


def total(power: dict[str, float]) -> float | None:
    """The device's power: its input rail if it has one, else the sum of what is measured."""
    inputs = [power[name] for name in _INPUTS if name in power]
    if inputs:
        return inputs[0]
    counted = [watts for name, watts in power.items() if _WITHIN.get(name) not in power]
    return sum(counted) if counted else None
