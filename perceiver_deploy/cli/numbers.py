"""Numbers of the command line: finite, within their range, refused by the name of their option otherwise."""

from __future__ import annotations

import math
import re
from typing import ClassVar

import click

ROUNDS = click.IntRange(2, 1_000_000)
THREADS = click.IntRange(1)
"""The upper bound is the machine's: see `perceiver_runtime.backends.check_threads`."""
MEBIBYTES = click.IntRange(1, 1 << 20)


class Finite(click.FloatRange):
    """A range that NaN and infinity are outside of, whatever its bounds."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text to a number."""
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # it takes text
        return number if math.isfinite(number) else self.fail(f"expected a finite number, got {value}", param, ctx)


POINTS = Finite(0.0, 100.0)
GIGABYTES = Finite(0.0, 1e6, min_open=True)


class Pixels(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Height and width in pixels, as 48x64."""

    name = "size"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Text to a pair of positive numbers."""
        if isinstance(value, tuple):
            return value
        if match := re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", value):
            return int(match[1]), int(match[2])
        return self.fail(f"expected HEIGHTxWIDTH in pixels, as 48x64, got {value!r}", param, ctx)


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes with its unit, as 1500MB or 1.5GB."""

    name = "size"
    units: ClassVar[dict[str, int]] = {"KB": 10**3, "MB": 10**6, "GB": 10**9}

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to bytes, at least one."""
        if isinstance(value, int):
            return value
        number, unit = value[:-2], value[-2:].upper()
        try:
            size = int(float(number) * self.units[unit])
        except (KeyError, ValueError, OverflowError):
            size = 0
        if size >= 1:
            return size
        return self.fail(
            f"expected a positive number with a unit of {', '.join(self.units)}, got {value!r}", param, ctx
        )
