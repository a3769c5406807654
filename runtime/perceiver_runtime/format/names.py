"""Names that become parts of paths: targets and components."""

from __future__ import annotations

import re

from perceiver_runtime.errors import BundleError, PerceiverError

MAX_LENGTH = 100
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)


def check_name(name: str, where: str, error: type[PerceiverError] = BundleError) -> str:
    """Return the name if it is valid: no separators, no control characters, not `.` or `..`. Raises `error`."""
    if len(name) > MAX_LENGTH or not _NAME.fullmatch(name):
        raise error(
            f"{where} {name!r:.60}; expected letters, digits, '_', '.' or '-', at most {MAX_LENGTH}, beginning "
            "with none of the last two"
        )
    return name
