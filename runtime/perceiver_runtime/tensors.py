"""Names, types and shapes of tensors, and the ranges that their symbolic dimensions may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Dimension = int | str


def is_whole(value: object) -> bool:
    """Whether it is an integer, Python's or NumPy's, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass(frozen=True)
class ValueRange:
    """The smallest and the largest value that a tensor's elements may have, both included."""

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"

    def holds(self, array: Array) -> bool:
        """Whether all elements lie in it; NaN never does."""
        return not array.size or bool(self.min <= array.min() and array.max() <= self.max)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, NumPy dtype name and shape; a `str` in the shape is a symbolic dimension.

    `range`, where there is one, is what a feed may hold: rows of a table for an integer, what FP16 holds for a float
    that the graph casts. It is no part of what makes two specs equal.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]
    range: ValueRange | None = field(default=None, compare=False)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic dimensions, in order of appearance."""
        return tuple(d for d in self.shape if isinstance(d, str))

    def resolve(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape with every symbol replaced by its size. Raises KeyError for an unknown symbol."""
        return tuple(d if isinstance(d, int) else sizes[d] for d in self.shape)

    def within(self, other: ValueRange | None) -> TensorSpec:
        """The spec with what its range and another have in common."""
        if other is None or self.range is None:
            return replace(self, range=other or self.range)
        return replace(self, range=ValueRange(max(self.range.min, other.min), min(self.range.max, other.max)))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Range:
    """Smallest, typical and largest size of one symbolic dimension."""

    min: int
    opt: int
    max: int

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.min <= size <= self.max

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"


@dataclass(frozen=True)
class Profile:
    """Ranges of all symbolic dimensions: what TensorRT calls an optimisation profile, written once per symbol."""

    name: str
    dimensions: Mapping[str, Range]

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The (min, opt, max) shapes of one tensor under this profile."""
        ranges = {symbol: self.dimensions[symbol] for symbol in spec.symbols}
        return (
            spec.resolve({s: r.min for s, r in ranges.items()}),
            spec.resolve({s: r.opt for s, r in ranges.items()}),
            spec.resolve({s: r.max for s, r in ranges.items()}),
        )
