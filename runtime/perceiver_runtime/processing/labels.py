"""Probabilities and class names from class scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.processing.expect import expect_numbers
from perceiver_runtime.tensors import is_whole

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One class: its label (its number if the bundle has no labels), number and probability."""

    label: str
    index: int
    probability: float


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities over the last axis, summed in FP64. Raises FeedError for NaN or infinite logits."""
    expect_numbers("logits", logits, ("...", "classes"), "check the bundle with `verify`")
    if not logits.size:
        raise FeedError(f"logits: expected at least one, got {list(logits.shape)}")
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def top_k(logits: npt.NDArray[Any], labels: Sequence[str] = (), k: int = 5) -> list[list[Prediction]]:
    """The most likely classes.

    Args:
        logits: Scores (B, classes).
        labels: Name of each class, or none.
        k: Number of classes per row.

    Returns:
        For each row the `k` most likely classes, best first; of equal ones the lowest number first.

    Raises:
        FeedError: The logits have another rank, or are not finite.
        UsageError: The number of labels is wrong, or `k` is out of range.
    """
    if not isinstance(logits, np.ndarray) or logits.ndim != 2:
        got = list(logits.shape) if isinstance(logits, np.ndarray) else type(logits).__name__
        raise FeedError(f"logits: expected rank 2 (batch, classes), got {got}; add a batch axis: [None]")
    classes = logits.shape[1]
    if not isinstance(labels, Sequence) or len(labels) not in (0, classes):
        found = str(len(labels)) if isinstance(labels, Sequence) else type(labels).__name__
        raise UsageError(f"labels: expected {classes}, one for each class, got {found}")
    if not is_whole(k) or not 1 <= k <= classes:
        raise UsageError(f"k: expected 1 to {classes}, got {k}")
    names = labels or [str(index) for index in range(classes)]
    probabilities = softmax(logits)
    best = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :k]
    return [
        [Prediction(names[i], int(i), float(row[i])) for i in chosen]
        for row, chosen in zip(probabilities, best, strict=True)
    ]
