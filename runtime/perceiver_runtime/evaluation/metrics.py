"""Metrics of classifiers and regressors, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import CheckError, DatasetError
from perceiver_runtime.tensors import Array

TOP = 5
"""Classes of which one has to be right for `top_5`."""


@dataclass(frozen=True)
class ClassMetrics:
    """Scores of one class in [0, 1]; a score that is 0/0 is 0. `support` counts its samples among the targets."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassificationMetrics:
    """Scores in [0, 1]. Macro means are over the classes that occur among targets or predictions.

    `top_5` is the share of samples whose class is among the five likeliest; None where there are no more than five.
    """

    samples: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: tuple[ClassMetrics, ...]
    top_5: float | None = None


@dataclass(frozen=True)
class RegressionMetrics:
    """Mean absolute error in the target's unit, and mean absolute percentage error as a fraction (0.05 is 5%).

    The relative error to a target of zero is undefined: such samples count for `mae` only. `zero_targets` counts them;
    if there are no others, `mape` is None.
    """

    samples: int
    mae: float
    mape: float | None
    zero_targets: int


class Classification:
    """Scores logits (N, classes), of which the largest is the prediction, against class numbers (N,)."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._hits, self._support, self._guessed = (np.zeros(len(labels), np.int64) for _ in range(3))
        self._top = 0

    def add(self, logits: Array, targets: Array) -> None:
        """Count a batch. Raises DatasetError if shapes or class numbers do not fit, CheckError for NaN or infinity."""
        self._check(logits, targets)
        predicted = logits.argmax(axis=1)
        for counts, classes in (
            (self._hits, targets[predicted == targets]),
            (self._support, targets),
            (self._guessed, predicted),
        ):
            counts += np.bincount(classes, minlength=len(self._labels))
        if len(self._labels) > TOP:
            own = np.take_along_axis(logits, targets[:, None], axis=1)
            before = (logits > own).sum(axis=1)
            before += ((logits == own) & (np.arange(logits.shape[1]) < targets[:, None])).sum(axis=1)
            self._top += int((before < TOP).sum())

    def result(self) -> ClassificationMetrics:
        """The scores. Raises DatasetError without samples."""
        samples = _counted(int(self._support.sum()))
        hits, support, guessed = self._hits, self._support, self._guessed
        scores = np.stack([_ratio(hits, guessed), _ratio(hits, support), _ratio(2 * hits, support + guessed)])
        macro = scores[:, np.flatnonzero(support + guessed)].mean(axis=1)
        return ClassificationMetrics(
            samples=samples,
            accuracy=float(hits.sum() / samples),
            precision=float(macro[0]),
            recall=float(macro[1]),
            f1=float(macro[2]),
            per_class=tuple(
                ClassMetrics(label, float(p), float(r), float(f), int(n))
                for label, p, r, f, n in zip(self._labels, *scores, support, strict=True)
            ),
            top_5=self._top / samples if len(self._labels) > TOP else None,
        )

    def _check(self, logits: Array, targets: Array) -> None:
        classes = len(self._labels)
        if logits.shape != (len(targets), classes) or targets.ndim != 1 or not len(targets) or not classes:
            raise DatasetError(
                f"metrics: expected logits {(len(targets), classes)} for {len(targets)} targets (N,) and {classes} "
                f"labels, at least one of each, got logits {logits.shape} and targets {targets.shape}"
            )
        if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= classes:
            raise DatasetError(
                f"metrics: expected targets to be class numbers 0 to {classes - 1}, "
                f"got {targets.dtype} from {targets.min()} to {targets.max()}"
            )
        require_finite(logits)


class Regression:
    """Scores predictions against targets of the same shape, element by element, in FP64."""

    def __init__(self) -> None:
        self._count = self._zero = 0
        self._error = self._relative = 0.0

    def add(self, predicted: Array, targets: Array) -> None:
        """Count a batch. Raises DatasetError if the shapes differ, CheckError for NaN or infinity."""
        if predicted.shape != targets.shape:
            raise DatasetError(
                f"metrics: expected predictions and targets of one shape, got {predicted.shape} and {targets.shape}"
            )
        require_finite(predicted)
        error = np.abs(predicted.astype(np.float64) - targets)
        nonzero = targets != 0
        self._count += targets.size
        self._zero += int((~nonzero).sum())
        self._error += float(error.sum())
        self._relative += float((error[nonzero] / np.abs(targets[nonzero])).sum())

    def result(self) -> RegressionMetrics:
        """The errors. Raises DatasetError without samples."""
        count = _counted(self._count)
        nonzero = count - self._zero
        mape = self._relative / nonzero if nonzero else None
        return RegressionMetrics(count, self._error / count, mape, self._zero)


def evaluate_classification(logits: Array, targets: Array, labels: Sequence[str]) -> ClassificationMetrics:
    """Score logits (N, classes) against class numbers (N,). Raises as `Classification.add` does."""
    metric = Classification(labels)
    metric.add(logits, targets)
    return metric.result()


def evaluate_regression(predicted: Array, targets: Array) -> RegressionMetrics:
    """Score predictions against targets of the same shape. Raises as `Regression.add` and `result` do."""
    metric = Regression()
    metric.add(predicted, targets)
    return metric.result()


def require_finite(values: Array) -> None:
    """Raise CheckError for outputs that are NaN or infinite."""
    if broken := int((~np.isfinite(values)).sum()):
        raise CheckError(f"metrics: expected finite outputs, got {broken} of {values.size} that are NaN or infinite")


def _counted(samples: int) -> int:
    if not samples:
        raise DatasetError("metrics: expected at least one sample, got none")
    return samples


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`part` / `whole`, with 0/0 as 0."""
    return part / np.maximum(whole, 1)
