"""Fields of a foreign config.json, checked by a table of types, ranges and defaults."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perceiver_runtime.errors import CheckpointError

REQUIRED: Any = object()
"""Default of a field that has none."""


@dataclass(frozen=True)
class Kind:
    """A condition on a value, as text and as a predicate."""

    expected: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Field:
    """Condition on one field, and its default."""

    kind: Kind
    default: Any = REQUIRED


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is an integer, and no bool, within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def whole(low: int, high: int) -> Kind:
    """An integer within bounds."""
    return Kind(f"an integer from {low:,} to {high:,}", lambda value: is_whole(value, low, high))


def number(low: float, high: float) -> Kind:
    """A finite number within bounds."""

    def holds(value: Any) -> bool:
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        return real and math.isfinite(value) and low <= value <= high

    return Kind(f"a number from {low:g} to {high:g}", holds)


def choice(*values: Any) -> Kind:
    """One of a few values, told apart by type as well: 1 is not true."""
    expected = " or ".join(map(repr, values))
    return Kind(expected, lambda value: any(type(value) is type(v) and value == v for v in values))


def optional(kind: Kind) -> Kind:
    """Null, or what `kind` says."""
    return Kind(f"{kind.expected} or null", lambda value: value is None or kind.holds(value))


def listed(kind: Kind, lengths: range) -> Kind:
    """A list of that many entries, each as `kind` says."""
    count = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    return Kind(
        f"a list of {count}, each {kind.expected}",
        lambda value: isinstance(value, (list, tuple)) and len(value) in lengths and all(map(kind.holds, value)),
    )


def either(first: Kind, second: Kind) -> Kind:
    """What one or the other says."""
    return Kind(f"{first.expected}, or {second.expected}", lambda value: first.holds(value) or second.holds(value))


MAX_WIDTH, MAX_LAYERS, MAX_HEADS, MAX_SIDE, MAX_POINTS = 2**20, 1024, 4096, 2**14, 2**24
"""Of widths and counts, layers of a block, heads, pixels of an image's side, and points of a whole input."""
WIDTH, LAYERS, HEADS, SIDE = (whole(1, limit) for limit in (MAX_WIDTH, MAX_LAYERS, MAX_HEADS, MAX_SIDE))
WIDENING, BANDS, VOCABULARY = whole(1, 256), whole(1, 1024), whole(1, 2**31 - 1)
FLAG = choice(True, False)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
PAIR = listed(SIDE, range(2, 3))
ANYTHING = Kind("anything", lambda _: True)


def read(values: Any, table: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The fields of `table` from a config, defaults filled in. Raises CheckpointError naming what is wrong."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: expected an object, got {shown(values)}")
    full = {}
    for name, field in table.items():
        value = values.get(name, field.default)
        if value is REQUIRED:
            raise CheckpointError(f"{where}: expected the field {name}, {field.kind.expected}; it is missing")
        if not field.kind.holds(value):
            raise CheckpointError(f"{where}: {name}: expected {field.kind.expected}, got {shown(value)}")
        full[name] = value
    return full


def divisible(where: str, width: tuple[str, int], heads: tuple[str, int]) -> None:
    """Refuse a width that its heads can't share evenly. Raises CheckpointError."""
    if width[1] % heads[1]:
        raise CheckpointError(f"{where}: expected {width[0]} {width[1]} to be a multiple of {heads[0]} {heads[1]}")


def few_points(where: str, name: str, sizes: Iterable[int]) -> None:
    """Refuse an input of more points than anything could hold. Raises CheckpointError."""
    if math.prod(sizes := tuple(sizes)) > MAX_POINTS:
        got = " x ".join(map(str, sizes))
        raise CheckpointError(f"{where}: {name}: expected at most {MAX_POINTS:,} points, got {got}")


def shown(value: Any) -> str:
    """A value for a message, however long or deep it is."""
    return reprlib.repr(value)
