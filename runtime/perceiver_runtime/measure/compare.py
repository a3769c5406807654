"""Compare the results of a backend with the reference: one frozen report per tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError
from perceiver_runtime.measure.spread import rows_of
from perceiver_runtime.tensors import Array

Mode = Literal["teacher-forced", "chained"]
BLOCK = 1 << 20


@dataclass(frozen=True)
class Bound:
    """Largest allowed error of a tensor: relative to the reference and, if `centred` is given, relative to `spread`.

    `spread` is the root mean square of |row - mean row| over the golden rows; 0 if they do not vary.
    """

    rel_l2: float
    spread: float = 0.0
    centred: float | None = None


@dataclass(frozen=True)
class ParityReport:
    """Distance of one tensor from the reference.

    Attributes:
        component: Component, or `"pipeline"`.
        tensor: Name of the tensor.
        mode: `teacher-forced` (reference inputs) or `chained` (the pipeline's own inputs).
        max_abs: Largest absolute difference.
        rel_l2: |got - reference| / |reference|.
        cosine: Cosine similarity.
        worst_index: Index of `max_abs`.
        nonfinite: Number of NaN and infinite values in either array.
        tolerance: Largest allowed `rel_l2`.
        passed: `rel_l2` and `centred` are within their tolerances, all values are finite, and the shapes are equal.
        centred: Root mean square of |got - reference| over rows, relative to that of |reference - mean row| over all
            golden rows: 1 is as bad as predicting the mean row for every input. None if the golden rows do not vary.
        centred_tolerance: Largest allowed `centred`, or None.
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
    centred: float | None = None
    centred_tolerance: float | None = None

    @property
    def decisive(self) -> tuple[float, float]:
        """The error that is larger relative to its tolerance, `rel_l2` or `centred`, and that tolerance."""
        whole = self.rel_l2, self.tolerance
        if self.centred is None or self.centred_tolerance is None:
            return whole
        return max(whole, (self.centred, self.centred_tolerance), key=lambda pair: _ratio(*pair))

    @property
    def excess(self) -> float:
        """The decisive error divided by its tolerance; the tensor fails above 1."""
        return math.inf if self.nonfinite else _ratio(*self.decisive)


def compare(reference: Array, got: Array, *, component: str, tensor: str, mode: Mode, bound: Bound) -> ParityReport:
    """Compare two arrays, accumulating in FP64 block by block.

    Args:
        reference: Reference, any shape.
        got: Result to judge.
        component: Component, for the report.
        tensor: Name of the tensor, for the report.
        mode: Where the component's inputs came from, for the report.
        bound: Largest allowed error.

    Returns:
        The report. Non-finite values and unequal shapes never pass.
    """
    if reference.shape != got.shape:
        return ParityReport(component, tensor, mode, math.inf, math.inf, 0.0, (), 0, bound.rel_l2, False)
    sums = _accumulate(reference.reshape(-1), got.reshape(-1))
    rel_l2, centred = sums.rel_l2, sums.centred(bound.spread, rows_of(reference))
    near = bound.centred is None or centred is None or centred <= bound.centred
    return ParityReport(
        component=component,
        tensor=tensor,
        mode=mode,
        max_abs=sums.max_abs,
        rel_l2=rel_l2,
        cosine=_cosine(sums),
        worst_index=tuple(int(i) for i in np.unravel_index(sums.worst, reference.shape)) if reference.size else (),
        nonfinite=sums.nonfinite,
        tolerance=bound.rel_l2,
        passed=sums.nonfinite == 0 and rel_l2 <= bound.rel_l2 and near,
        centred=centred,
        centred_tolerance=bound.centred,
    )


def relative_l2(reference: Array, got: Array) -> float:
    """Relative L2 error of `got`, accumulated in FP64.

    Args:
        reference: Reference, any shape.
        got: Result to judge, of the same shape.

    Returns:
        |got - reference| / |reference|; 0.0 if both are zero, infinity if only `reference` is, or if either contains
        non-finite values.

    Raises:
        FeedError: The shapes differ.
    """
    return distances(reference, got)[0]


def distances(reference: Array, got: Array, spread: float = 0.0) -> tuple[float, float | None]:
    """`rel_l2` and `centred` of a `ParityReport`; both infinite for non-finite values. FeedError for other shapes."""
    if reference.shape != got.shape:
        raise FeedError(f"expected an array of shape {reference.shape}, got {got.shape}")
    sums = _accumulate(reference.reshape(-1), got.reshape(-1))
    centred = sums.centred(spread, rows_of(reference))
    return (math.inf, centred and math.inf) if sums.nonfinite else (sums.rel_l2, centred)


@dataclass
class _Sums:
    """Running sums of squares and products; `worst` is the flat index of the largest difference."""

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

    @property
    def rel_l2(self) -> float:
        return _ratio(math.sqrt(self.difference), math.sqrt(self.reference))

    def centred(self, spread: float, rows: int) -> float | None:
        return math.sqrt(self.difference / rows) / spread if spread and rows else None


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
