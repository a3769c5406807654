"""Reading of sysfs and procfs: values that are missing or damaged are absent, not errors."""

from __future__ import annotations

import re
from pathlib import Path

_KIBIBYTE = 1024


def read_text(path: Path) -> str:
    """The text without blanks at its ends; empty if the file can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_integer(path: Path) -> int | None:
    """The number in the file, or None."""
    text = read_text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def memory(meminfo: Path) -> tuple[int | None, int | None]:
    """Used and total bytes: total less what is available."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", read_text(meminfo), re.MULTILINE))
    if "MemTotal" not in fields or "MemAvailable" not in fields:
        return None, None
    size = int(fields["MemTotal"])
    return (size - int(fields["MemAvailable"])) * _KIBIBYTE, size * _KIBIBYTE
