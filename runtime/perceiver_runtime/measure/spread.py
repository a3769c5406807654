"""Variation of a reference tensor over the golden rows, which an error must be small relative to.

A relative error of 0.4 % means nothing for a regression of 300 K that varies by 1 K: any constant near 300 K has it
too. The rows of a tensor are its first axis, over all golden samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Spread:
    """Root mean squares over rows: of |row - mean row| (`rms`) and of |row| (`magnitude`).

    `rms` is 0 if rows do not vary, and for a single row.
    """

    rms: float = 0.0
    magnitude: float = 0.0


def rows_of(array: Array) -> int:
    """Number of entries of the first axis; a scalar is one row."""
    return len(array) if array.ndim else 1


def spread_of(arrays: Iterable[Array]) -> Spread:
    """Spread of one tensor over all its golden arrays. Rows of different shapes have separate means."""
    groups: dict[tuple[int, ...], _Rows] = {}
    for array in arrays:
        for row in array if array.ndim else array[None]:
            groups.setdefault(row.shape, _Rows()).add(np.asarray(row, np.float64).reshape(-1))
    several = [group for group in groups.values() if group.count > 1]
    count = sum(group.count for group in several)
    squares = sum(group.deviation for group in several), sum(group.squares for group in several)
    if not count or not all(map(math.isfinite, squares)):
        return Spread()
    rms, magnitude = (math.sqrt(square / count) for square in squares)
    return Spread(rms, magnitude)


class _Rows:
    """Sums over the differences of rows from the first row, so that a large constant does not cost precision."""

    def __init__(self) -> None:
        self.count = 0
        self.squares = 0.0
        self._around = 0.0

    def add(self, row: npt.NDArray[np.float64]) -> None:
        if not self.count:
            self._first, self._sum = row, np.zeros_like(row)
        self.count += 1
        self.squares += float(row @ row)
        difference = row - self._first
        self._around += float(difference @ difference)
        self._sum += difference

    @property
    def deviation(self) -> float:
        """Sum over rows of |row - mean row|^2."""
        return max(0.0, self._around - float(self._sum @ self._sum) / self.count)
