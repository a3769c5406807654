"""Edit distance between names, for many pairs at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_FAR = 1 << 14


def similarity(first: Sequence[str], second: Sequence[str]) -> npt.NDArray[np.float64]:
    """1 - Levenshtein distance / length of the longer one, for each pair (N,) of names; 1 for two empty names."""
    a, b = _codes(first), _codes(second)
    lengths = np.array([[len(x), len(y)] for x, y in zip(first, second, strict=True)]).reshape(-1, 2)
    table = np.full((len(first), a.shape[1] + 1, b.shape[1] + 1), _FAR, np.int16)
    table[:, :, 0], table[:, 0, :] = np.arange(a.shape[1] + 1), np.arange(b.shape[1] + 1)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            changed = table[:, i, j] + (a[:, i] != b[:, j])
            dropped = np.minimum(table[:, i, j + 1], table[:, i + 1, j]) + 1
            table[:, i + 1, j + 1] = np.minimum(changed, dropped)
    distance = table[np.arange(len(first)), lengths[:, 0], lengths[:, 1]]
    return np.asarray(1.0 - distance / np.maximum(lengths.max(axis=1), 1), np.float64)


def _codes(names: Sequence[str]) -> npt.NDArray[np.int32]:
    """Characters (N, longest), padded with 0."""
    codes = np.zeros((len(names), max(map(len, names), default=0)), np.int32)
    for row, name in zip(codes, names, strict=True):
        row[: len(name)] = list(map(ord, name))
    return codes
