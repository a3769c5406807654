"""Checks of arrays given to processing functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError
from perceiver_runtime.tensors import TensorSpec


def expect(spec: TensorSpec, array: Any, remedy: str) -> None:
    """Check an array against a spec whose symbols are any size of at least 1. Raises FeedError."""
    if not isinstance(array, np.ndarray):
        raise FeedError(f"{spec.name}: expected a NumPy array {spec}, got {type(array).__name__}; {remedy}")
    fits = array.ndim == spec.rank and all(
        size >= 1 if isinstance(dimension, str) else size == dimension
        for dimension, size in zip(spec.shape, array.shape)  # noqa: B905 - ranks are equal
    )
    if array.dtype != spec.dtype or not fits:
        raise FeedError(f"{spec.name}: expected {spec}, got {array.dtype}{list(array.shape)}; {remedy}")


def expect_numbers(
    name: str, array: Any, shape: tuple[int | str, ...] | None = None, remedy: str = "", *, finite: bool = True
) -> None:
    """Raise FeedError for anything but an array of real numbers, `finite` ones, of this shape.

    A shape of None is any; with "..." first it may have any leading dimensions.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise FeedError(f"{name}: expected a NumPy array of numbers, got {got}")
    if shape is not None and not _fits(array.shape, shape):
        raise FeedError(f"{name}: expected shape [{', '.join(map(str, shape))}], got {array.dtype}{list(array.shape)}")
    if finite and not np.isfinite(array).all():
        raise FeedError(f"{name}: expected finite numbers, got NaN or infinity{remedy and f'; {remedy}'}")


def _fits(sizes: tuple[int, ...], shape: tuple[int | str, ...]) -> bool:
    if shape[:1] == ("...",):
        shape = shape[1:]
        sizes = sizes[max(len(sizes) - len(shape), 0) :]
    return len(sizes) == len(shape) and all(
        isinstance(dimension, str) or size == dimension
        for dimension, size in zip(shape, sizes)  # noqa: B905 - ranks are equal
    )
