"""Telemetry of a device at one moment, in SI units. Values that a device does not report are absent, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """`time` in seconds of a monotonic clock; `power` in watts by rail; `temperature` in degrees Celsius by zone.

    `total_power` is the whole device's where it is known: a board's input rail, or the sum of all rails. `energy` is a
    counter of joules, from whatever start, where the device has one: it is more exact than the integral of the power.
    `utilisation` is between 0 and 1. `throttled` names the reasons given by the device.
    """

    time: float
    power: Mapping[str, float] = field(default_factory=dict)
    total_power: float | None = None
    energy: float | None = None
    temperature: Mapping[str, float] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=dict)
    utilisation: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    throttled: tuple[str, ...] = ()


class Source(Protocol):
    """Source of samples. `description` names the device and its power mode, for reports."""

    description: str
    power_mode: str | None

    def sample(self) -> Sample:
        """Read the device."""
