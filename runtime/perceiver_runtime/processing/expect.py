"""Refusal of arrays that a preprocessing step can't take."""

from __future__ import annotations

from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError
from perceiver_runtime.tensors import TensorSpec


def expect(spec: TensorSpec, array: Any, remedy: str) -> None:
    """Hold an array against a spec whose symbols stand for any size of at least 1. Raises FeedError."""
    if not isinstance(array, np.ndarray):
        raise FeedError(f"{spec.name}: expected a NumPy array {spec}, got {type(array).__name__}; {remedy}")
    fits = array.ndim == spec.rank and all(
        size >= 1 if isinstance(dimension, str) else size == dimension
        for dimension, size in zip(spec.shape, array.shape)  # noqa: B905 - ranks are equal
    )
    if array.dtype != spec.dtype or not fits:
        raise FeedError(f"{spec.name}: expected {spec}, got {array.dtype}{list(array.shape)}; {remedy}")
