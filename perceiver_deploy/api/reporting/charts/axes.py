"""Axes: a range of values, linear or logarithmic, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MAX_DECADES = 8
"""Labelled decades of an axis; of more, every second or third one is labelled."""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` (positive and unequal), with ticks at round ones; `unit` follows tick labels."""

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()
    unit: str = ""

    def at(self, value: float, start: float, end: float) -> float:
        """Where a value is drawn on an axis from `start` to `end`; values beyond it lie at its ends."""
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, max(value, self.low)))
            if self.log
            else (
                self.low,
                self.high,
                value,
            )
        )
        share = (at - low) / (high - low)
        return start + (end - start) * min(max(share, 0.0), 1.0)

    def text(self, tick: float) -> str:
        """The label of a tick."""
        if self.log and (self.low < 1e-3 or self.high > 1e5):
            exponent = math.floor(math.log10(tick) + 1e-9)
            mantissa = tick / 10**exponent
            power = f"10{str(exponent).translate(SUPERSCRIPTS)}"
            return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.0f}·{power}"
        return f"{tick:,.10g}{self.unit}"


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """A logarithmic axis over the positive ones of some values, from one round number to another."""
    positive = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    first, last = math.log10(min(positive)), math.log10(max(positive))
    if last - first < 1.5:
        steps = [m * 10.0**e for e in range(math.floor(first) - 1, math.ceil(last) + 2) for m in (1, 2, 5)]
        low = max(s for s in steps if s <= min(positive) * (1 + 1e-9))
        high = min(s for s in steps if s >= max(positive) * (1 - 1e-9) and s > low)
        return Axis(label, low, high, True, tuple(s for s in steps if low <= s <= high))
    bottom, top = math.floor(first + 1e-9), math.ceil(last - 1e-9)
    every = math.ceil((top - bottom) / MAX_DECADES)
    return Axis(label, 10.0**bottom, 10.0**top, True, tuple(10.0**e for e in range(bottom, top + 1, every)))


def linear_axis(label: str, low: float, high: float, *, parts: int = 5, unit: str = "", whole: bool = False) -> Axis:
    """A linear axis from a round number to another that cover a range, in about so many parts."""
    span = max(high - low, 1e-9 * max(abs(low), abs(high))) or 1.0
    size = 10.0 ** math.floor(math.log10(span / parts))
    step = size * next((factor for factor in (1, 2, 5) if span / (size * factor) <= parts + 1e-9), 10)
    step = max(step, 1.0) if whole else step
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Axis(label, ticks[0], ticks[-1], False, ticks, unit)
