"""Options of `perceiver-run`: wrong usage is a UsageError that names the option and what was expected."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
LARGEST = 1_000_000


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names only, and raises UsageError where argparse would end the process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError below the command's usage."""
        self.print_usage(sys.stderr)
        raise UsageError(message)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Refuse unknown options here, where the command's own are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if options := [word.partition("=")[0] for word in unknown if word.startswith("-")]:
            near = did_you_mean(options[0], self._option_string_actions)
            self.error(f"no such option: {options[0]}{near}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(name) for name in action.choices]
            message = f"expected one of {', '.join(names)}, got {str(value)!r:.40}{did_you_mean(str(value), names)}"
            raise argparse.ArgumentError(action, message)


def integer(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """A type for `add_argument`: an integer of `least` to `most`."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"expected an integer of {least} to {most}, got {text:.40}")
        return number

    return convert


def integers(least: int, most: int = LARGEST) -> Callable[[str], tuple[int, ...]]:
    """A type for `add_argument`: different integers of `least` to `most`, with commas between them."""
    one = integer(least, most)

    def convert(text: str) -> tuple[int, ...]:
        numbers = tuple(one(word) for word in text.split(","))
        if len(set(numbers)) != len(numbers):
            raise argparse.ArgumentTypeError(f"expected different integers, got {text:.40}")
        return numbers

    return convert


def number(least: float, most: float) -> Callable[[str], float]:
    """A type for `add_argument`: a number of `least` to `most`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number of {least:.9g} to {most:.9g}, got {text:.40}")
        return value

    return convert


def size(text: str) -> int:
    """A type for `add_argument`: bytes, written with their unit, as 1500MB or 1.5GB."""
    number = text.rstrip("BbGgIiKkMm")
    unit = text[len(number) :].upper()
    try:
        value = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        value = math.nan
    if not 1 <= value < 1 << 62:
        raise argparse.ArgumentTypeError(
            f"expected a size with a unit of {', '.join(UNITS).replace('IB', 'iB')}, as 1500MB, got {text!r:.40}"
        )
    return int(value)
