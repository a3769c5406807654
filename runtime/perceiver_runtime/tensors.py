"""Names, types and shapes of tensors, and the ranges of their symbolic dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Dimension = int | str


def is_whole(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest allowed value of a tensor's elements, both included."""

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"

    def holds(self, array: Array) -> bool:
        """Whether all elements are within the range; NaN never is."""
        return not array.size or bool(self.min <= array.min() and array.max() <= self.max)


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape of a tensor.

    Attributes:
        name: Name of the tensor.
        dtype: NumPy dtype name, such as `float32`.
        shape: Sizes; a `str` is a symbolic dimension.
        range: Allowed values of a feed: row numbers of a table for integers, the range of FP16 for floats that the
            graph casts. Two specs are equal whatever their ranges are.
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
        """Replace every symbolic dimension by its size.

        Args:
            sizes: Size of each symbolic dimension.

        Returns:
            The shape in numbers.

        Raises:
            KeyError: A symbol has no size.
        """
        return tuple(d if isinstance(d, int) else sizes[d] for d in self.shape)

    def within(self, other: ValueRange | None) -> TensorSpec:
        """The spec with the intersection of its range and another."""
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
    """Ranges of all symbolic dimensions, one for each symbol: an optimisation profile in TensorRT's terms."""

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
