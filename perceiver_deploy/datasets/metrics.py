"""Task metrics: accuracy, precision, recall and F1 of classifiers; MAE and MAPE of regressors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import CheckError, DatasetError
from perceiver_runtime.tensors import Array


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
    """Scores in [0, 1]. Macro means are over the classes that occur among targets or predictions."""

    samples: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: tuple[ClassMetrics, ...]


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


def evaluate_classification(logits: Array, targets: Array, labels: Sequence[str]) -> ClassificationMetrics:
    """Score logits (N, classes), of which the largest is the prediction, against targets (N,) of class numbers.

    Raises DatasetError if the shapes or class numbers do not fit, CheckError if a logit is NaN or infinite.
    """
    _require_classification(logits, targets, labels)
    predicted = logits.argmax(axis=1)
    hits, support, guessed = (
        np.bincount(classes, minlength=len(labels)) for classes in (targets[predicted == targets], targets, predicted)
    )
    scores = np.stack([_ratio(hits, guessed), _ratio(hits, support), _ratio(2 * hits, support + guessed)])
    per_class = tuple(
        ClassMetrics(label, float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(labels, *scores, support, strict=True)
    )
    macro = scores[:, np.union1d(targets, predicted)].mean(axis=1)
    return ClassificationMetrics(
        samples=len(targets),
        accuracy=float((predicted == targets).mean()),
        precision=float(macro[0]),
        recall=float(macro[1]),
        f1=float(macro[2]),
        per_class=per_class,
    )


def evaluate_regression(predicted: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> RegressionMetrics:
    """Score predictions against targets of the same shape, element by element, in FP64.

    Raises DatasetError if the shapes differ or are empty, CheckError if a prediction is NaN or infinite.
    """
    if predicted.shape != targets.shape or targets.size == 0:
        raise DatasetError(
            f"metrics: expected predictions and targets of one shape and not empty, "
            f"got {predicted.shape} and {targets.shape}"
        )
    _require_finite(predicted)
    error = np.abs(predicted.astype(np.float64) - targets)
    nonzero = targets != 0
    mape = float((error[nonzero] / np.abs(targets[nonzero])).mean()) if nonzero.any() else None
    return RegressionMetrics(targets.size, float(error.mean()), mape, int((~nonzero).sum()))


def _ratio(part: npt.NDArray[np.intp], whole: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """`part` / `whole`, with 0/0 as 0."""
    return part / np.maximum(whole, 1)


def _require_classification(logits: Array, targets: Array, labels: Sequence[str]) -> None:
    expected = (len(targets), len(labels))
    if logits.shape != expected or targets.ndim != 1 or len(targets) == 0:
        raise DatasetError(
            f"metrics: expected logits {expected} for {len(targets)} targets (N,) and {len(labels)} labels, at least "
            f"one of each, got logits {logits.shape} and targets {targets.shape}"
        )
    if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= len(labels):
        raise DatasetError(
            f"metrics: expected targets to be class numbers 0 to {len(labels) - 1}, "
            f"got {targets.dtype} from {targets.min()} to {targets.max()}"
        )
    _require_finite(logits)


def _require_finite(values: Array) -> None:
    if broken := int((~np.isfinite(values)).sum()):
        raise CheckError(f"metrics: expected finite outputs, got {broken} of {values.size} that are NaN or infinite")
