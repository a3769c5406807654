"""Escape text from bundles and paths for terminals and shells."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters but the line feed, separators of lines, and marks that turn the direction of writing."""


def printable(text: str) -> str:
    """The text with control characters escaped, so that a name can't move the cursor or change colours."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def command_line(program: str, command: str, path: Path) -> str:
    """A shell command on an absolute path, quoted."""
    return shlex.join((program, command, str(path.resolve())))
