"""JSON as RFC 8259 has it, read and written strictly: every reader and writer of a bundle's records goes through here.

Python's own parser takes NaN and Infinity, turns 1e999 into infinity, lets the last of two equal names win, and fails
in four ways of its own on deep nesting, long integers and broken text. Here all of these are one ValueError.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DIGITS = 300
"""Of an integer: more would not even fit a double, and Python takes quadratic time for them."""
MAX_DEPTH = 64
"""Of arrays and objects within each other: readers and writers of records call themselves for each."""
MAX_VALUES = 2_000_000
"""Of a document, and commas in its texts: each takes up to 100 bytes of memory, in a file one or two."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: str | bytes) -> Any:
    """Parse one JSON document in UTF-8.

    Raises ValueError for anything that RFC 8259 does not allow, a number that a double can't hold, a name that occurs
    twice in an object, half a surrogate pair, nesting of more than `MAX_DEPTH`, and more values than `MAX_VALUES`.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        if len(decoded) > MAX_VALUES and sum(map(decoded.count, ",[{")) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")
        value = json.loads(
            decoded, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_unique
        )
        if _SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if decoded.count("[") + decoded.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        if (depth := depth + 1) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        level = [each for item in level for each in (item.values() if isinstance(item, dict) else item)]


def dumps(value: Any, *, indent: int | None = 2, sort_keys: bool = False, ensure_ascii: bool = True) -> str:
    """One JSON document. Raises ValueError for NaN and infinity, which JSON lacks."""
    return json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)


def without_nonfinite(value: Any) -> Any:
    """JSON-ready data with null in the place of NaN and infinity: what programs print for other programs."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits:.40} is beyond a double's range")
    return value


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits; expected at most {MAX_DIGITS}")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r:.40} occurs twice in an object")
    return result
