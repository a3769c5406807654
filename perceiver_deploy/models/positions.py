"""Fourier position encodings, computed in FP64 once and stored in FP32.

Arguments reach pi * max_frequency (352 rad for images, 48,255 for audio): in FP16 or even FP32 arithmetic the
sine of such a number is noise, so the table is a constant of the model rather than a part of its graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def grid(sizes: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Positions linspace(-1, 1) on every axis of a grid, row major: (prod(sizes), len(sizes))."""
    axes = [np.linspace(-1.0, 1.0, n) for n in sizes]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(sizes))


def fourier_features(
    positions: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    resolution: Sequence[int],
    bands: int,
    *,
    concat_positions: bool = True,
    sine_only: bool = False,
) -> Tensor:
    """Encode positions (M, d) in [-1, 1] as (M, [d +] d * bands * (1 or 2)) features, FP32.

    Frequencies run linearly from 1 to resolution / 2 per axis; order: positions, all sines, all cosines
    (Jaegle et al. 2021, appendix D).
    """
    frequencies = np.stack([np.linspace(1.0, r / 2, bands) for r in resolution])
    angles = (np.pi * positions[:, :, None] * frequencies[None]).reshape(len(positions), -1)
    parts = [positions] if concat_positions else []
    parts += [np.sin(angles)] if sine_only else [np.sin(angles), np.cos(angles)]
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))


def fourier_dim(axes: int, bands: int, *, concat_positions: bool = True, sine_only: bool = False) -> int:
    """Width of `fourier_features` over a grid of that many axes."""
    return axes * bands * (1 if sine_only else 2) + (axes if concat_positions else 0)
