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
_UNLABELLED = {"ina238": "VIN"}
"""Monitors of one rail that give it no label: Thor's INA238 measures the board's input (tegrastats calls it VIN)."""
_WITHIN = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""Rails that are fed from another measured rail (AGX Orin): they count once."""


@dataclass(frozen=True)
class Rail:
    """One measured rail: `power()` is millivolts times milliamperes."""

    name: str
    voltage: Path
    current: Path

    def power(self) -> float:
        """Present power in watts. Raises OSError if the monitor can't be read."""
        return int(self.voltage.read_text()) * int(self.current.read_text()) / 1e6


def find_rails(sysfs: Path = SYSFS) -> tuple[Rail, ...]:
    """All connected rails of all monitors, by name."""
    found = [
        Rail(name, monitor / f"in{number}_input", monitor / f"curr{number}_input")
        for monitor in sysfs.glob(_MONITORS)
        for number, name in _channels(monitor)
    ]
    connected = (rail for rail in found if rail.name not in ("", NOT_CONNECTED))
    measured = (rail for rail in connected if rail.voltage.is_file() and rail.current.is_file())
    return tuple(sorted(measured, key=lambda rail: rail.name))


def _channels(monitor: Path) -> list[tuple[str, str]]:
    """Number and rail of each of a monitor's channels."""
    kind = monitor / "name"
    if kind.is_file() and (name := _UNLABELLED.get(kind.read_text().strip())) is not None:
        return [("1", name)]
    labels = ((label, _LABEL.search(label.name)) for label in monitor.glob("in*_label"))
    return [(match[1], label.read_text().strip()) for label, match in labels if match is not None]


def total(power: dict[str, float]) -> float | None:
    """The device's power: its input rail if it has one, else the sum of what is measured."""
    inputs = [power[name] for name in _INPUTS if name in power]
    if inputs:
        return inputs[0]
    counted = [watts for name, watts in power.items() if _WITHIN.get(name) not in power]
    return sum(counted) if counted else None
