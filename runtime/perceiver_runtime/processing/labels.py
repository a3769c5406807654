"""Class scores to probabilities and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, UsageError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One class: its name (its number, where a bundle has no labels), number and probability."""

    label: str
    index: int
    probability: float


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities over the last axis, summed in FP64. Raises FeedError for NaN or infinite logits."""
    if not np.isfinite(logits).all():
        raise FeedError("logits: expected finite numbers, got NaN or infinity; check the bundle with `verify`")
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def top_k(logits: npt.NDArray[Any], labels: Sequence[str] = (), k: int = 5) -> list[list[Prediction]]:
    """For each row of logits (B, classes) the `k` likeliest classes, best first; of equals the lowest number first.

    Raises FeedError for another rank, UsageError for labels of another number, or a `k` out of range.
    """
    if logits.ndim != 2:
        raise FeedError(f"logits: expected rank 2 (batch, classes), got {list(logits.shape)}; add a batch axis: [None]")
    classes = logits.shape[1]
    if labels and len(labels) != classes:
        raise UsageError(f"labels: expected {classes}, one for each class, got {len(labels)}")
    if not 1 <= k <= classes:
        raise UsageError(f"k: expected 1 to {classes}, got {k}")
    names = labels or [str(index) for index in range(classes)]
    probabilities = softmax(logits)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return [
        [Prediction(names[i], int(i), float(row[i])) for i in chosen]
        for row, chosen in zip(probabilities, best, strict=True)
    ]
