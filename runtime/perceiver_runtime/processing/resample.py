"""Bicubic resampling of 8-bit images with the arithmetic of Pillow: the same result to the last bit.

Each axis is a sum of taps (cubic convolution with a = -1/2, Keys 1981), widened where the image shrinks, so that
nothing aliases. Coefficients have 22 fractional bits; sums are rounded to 8 bits after each axis, columns first. Pillow
13 takes the rows first where that is faster, which it never is between squares.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

SUPPORT = 2.0
FRACTION_BITS = 22


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Resample an image (H, W, C) to (height, width, C); an axis of the right size is left as it is."""
    wide = image if image.shape[1] == width else _rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    return wide if wide.shape[0] == height else _rows(wide, height)


def _rows(image: Pixels, height: int) -> Pixels:
    """Sums stay below 255 * 1.25 * 2**22 in size, so 32 bits hold them."""
    sources, weights = taps(image.shape[0], height)
    flat = image.reshape(image.shape[0], -1)
    sums = np.full((height, flat.shape[1]), 1 << (FRACTION_BITS - 1), np.int32)
    for source, weight in zip(sources.T, weights.T, strict=True):
        sums += weight[:, None] * flat[source]
    pixels: Pixels = np.clip(sums >> FRACTION_BITS, 0, 255).astype(np.uint8)
    return pixels.reshape(height, *image.shape[1:])


@functools.lru_cache(32)
def taps(size: int, resized: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Which pixels of an axis make one of the resized axis, and their weights in units of 2**-22: both (resized, taps).

    Taps beyond the image weigh nothing, and the others weigh 1 together.
    """
    scale = size / resized
    widening = max(scale, 1.0)
    centers = (np.arange(resized) + 0.5) * scale
    first = np.maximum((centers - SUPPORT * widening + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + SUPPORT * widening + 0.5).astype(np.int64), size)
    sources = first[:, None] + np.arange((last - first).max())
    weights = bicubic((sources - centers[:, None] + 0.5) * (1.0 / widening))
    weights[sources >= last[:, None]] = 0.0
    # One after another, as Pillow adds them: a pairwise sum can differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    rounded = np.trunc(weights * (1 << FRACTION_BITS) + np.copysign(0.5, weights))
    return np.minimum(sources, size - 1), rounded.astype(np.int32)


def bicubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The cubic convolution kernel at distances in pixels (Keys 1981, a = -1/2)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < SUPPORT, far, 0.0))
