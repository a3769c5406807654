"""Compare what a backend computed with the reference: one frozen report for one tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from perceiver_runtime.tensors import Array

Mode = Literal["teacher-forced", "chained"]
BLOCK = 1 << 20


@dataclass(frozen=True)
class ParityReport:
    """Distance of one tensor from the reference.

    `rel_l2` is |got - reference| / |reference| and decides: `passed` is `rel_l2 <= tolerance`, all finite, shapes
    equal. `worst_index` is where `max_abs` was found; `nonfinite` counts NaN and Inf in either array.
    """

    component: str
    tensor: str
    mode: Mode
    max_abs: float
    rel_l2: float
    cosine: float
    worst_index: tuple[int, ...]
    nonfinite: int
    tolerance: float
    passed: bool


def compare(reference: Array, got: Array, *, component: str, tensor: str, mode: Mode, tolerance: float) -> ParityReport:
    """Compare two arrays, accumulating in FP64 block by block. Non-finite numbers and unequal shapes never pass."""
    if reference.shape != got.shape:
        return ParityReport(component, tensor, mode, math.inf, math.inf, 0.0, (), 0, tolerance, False)
    sums = _accumulate(reference.reshape(-1), got.reshape(-1))
    rel_l2 = _ratio(math.sqrt(sums.difference), math.sqrt(sums.reference))
    return ParityReport(
        component=component,
        tensor=tensor,
        mode=mode,
        max_abs=sums.max_abs,
        rel_l2=rel_l2,
        cosine=_cosine(sums),
        worst_index=tuple(int(i) for i in np.unravel_index(sums.worst, reference.shape)) if reference.size else (),
        nonfinite=sums.nonfinite,
        tolerance=tolerance,
        passed=sums.nonfinite == 0 and rel_l2 <= tolerance,
    )


@dataclass
class _Sums:
    """Squares and products so far; `worst` is the flat index of the largest difference."""

    difference: float = 0.0
    reference: float = 0.0
    got: float = 0.0
    product: float = 0.0
    max_abs: float = 0.0
    worst: int = 0
    nonfinite: int = 0

    def add(self, start: int, reference: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(reference) & np.isfinite(got)
        if not finite.all():
            if not self.nonfinite:
                self.max_abs, self.worst = math.inf, start + int(np.argmin(finite))
            self.nonfinite += int(finite.size - np.count_nonzero(finite))
            reference, got = np.where(finite, reference, 0.0), np.where(finite, got, 0.0)
        difference = np.abs(got - reference)
        largest = int(np.argmax(difference))
        if difference[largest] > self.max_abs:
            self.max_abs, self.worst = float(difference[largest]), start + largest
        self.difference += float(difference @ difference)
        self.reference += float(reference @ reference)
        self.got += float(got @ got)
        self.product += float(reference @ got)


def _accumulate(reference: Array, got: Array) -> _Sums:
    sums = _Sums()
    for start in range(0, reference.size, BLOCK):
        block = slice(start, start + BLOCK)
        sums.add(start, reference[block].astype(np.float64), got[block].astype(np.float64))
    return sums


def _ratio(difference: float, reference: float) -> float:
    if difference == 0.0:
        return 0.0
    return difference / reference if reference else math.inf


def _cosine(sums: _Sums) -> float:
    norms = math.sqrt(sums.reference) * math.sqrt(sums.got)
    if norms == 0.0:
        return 1.0 if sums.reference == sums.got else 0.0
    return sums.product / norms
