"""Options of `perceiver-run`: wrong usage is a UsageError, numbers are held against their range."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from perceiver_runtime.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names only, and raises UsageError where argparse would end the process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError below the command's usage."""
        self.print_usage(sys.stderr)
        raise UsageError(message)


LARGEST = 1_000_000


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
