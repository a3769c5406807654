"""Resampling of 8-bit images with the arithmetic of Pillow: the same result to the last bit.

Each axis is a sum of taps under a filter, widened where the image shrinks, so that nothing aliases. Coefficients have
22 fractional bits; sums are rounded and clipped to 8 bits after each axis. Pillow takes the columns first; from version
13 on it takes the rows first where `rows_go_first` says so, which it never does between squares. The two differ by
these roundings, and by the clipping where a filter overshoots.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.settings import Filter

Pixels = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.float64]

FRACTION_BITS = 22


def resize(image: Pixels, height: int, width: int, filter: Filter = "bicubic", *, rows_first: bool = False) -> Pixels:
    """Resample an image (H, W, C) to (height, width, C); an axis of the right size is left as it is."""
    sizes = height, width
    for axis in (0, 1) if rows_first else (1, 0):
        if image.shape[axis] != sizes[axis]:
            image = _rows(image.swapaxes(0, axis), sizes[axis], filter).swapaxes(0, axis)
    return image


def rows_go_first(height: int, width: int, resized_height: int, resized_width: int) -> bool:
    """Whether Pillow 13 takes the rows of an image before its columns, as measured on 13.0."""
    return resized_height < height and 2 * (width - resized_width) < height - resized_height


def _rows(image: Pixels, height: int, filter: Filter) -> Pixels:
    """Sums stay below 255 * 1.6 * 2**22 in size, so 32 bits hold them."""
    if filter == "nearest":
        return image[nearest(image.shape[0], height)]
    sources, weights = taps(image.shape[0], height, filter)
    flat = image.reshape(image.shape[0], -1)
    sums = np.full((height, flat.shape[1]), 1 << (FRACTION_BITS - 1), np.int32)
    for source, weight in zip(sources.T, weights.T, strict=True):
        sums += weight[:, None] * flat[source]
    pixels: Pixels = np.clip(sums >> FRACTION_BITS, 0, 255).astype(np.uint8)
    return pixels.reshape(height, *image.shape[1:])


def nearest(size: int, resized: int) -> npt.NDArray[np.int64]:
    """Which pixel of an axis each of the resized axis is: (resized,). Steps are added one by one, as Pillow does."""
    steps = np.full(resized, size / resized)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), size - 1)


@functools.lru_cache(32)
def taps(size: int, resized: int, filter: Filter = "bicubic") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Which pixels of an axis make one of the resized axis, and their weights in units of 2**-22: both (resized, taps).

    Taps beyond the image weigh nothing, and the others weigh 1 together.
    """
    kernel = KERNELS[filter]
    scale = size / resized
    widening = max(scale, 1.0)
    centers = (np.arange(resized) + 0.5) * scale
    first = np.maximum((centers - kernel.support * widening + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + kernel.support * widening + 0.5).astype(np.int64), size)
    sources = first[:, None] + np.arange((last - first).max())
    weights = kernel.weigh((sources - centers[:, None] + 0.5) * (1.0 / widening))
    weights[sources >= last[:, None]] = 0.0
    # One after another, as Pillow adds them: a pairwise sum can differ in the last bit.
    total = np.cumsum(weights, axis=1)[:, -1:]
    weights /= np.where(total == 0.0, 1.0, total)
    rounded = np.trunc(weights * (1 << FRACTION_BITS) + np.copysign(0.5, weights))
    return np.minimum(sources, size - 1), rounded.astype(np.int32)


@dataclass(frozen=True)
class Kernel:
    """The weight of a pixel at a distance in pixels, which is zero from `support` on."""

    support: float
    weigh: Callable[[Distances], Distances]


def _box(x: Distances) -> Distances:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: Distances) -> Distances:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _bicubic(distance: Distances) -> Distances:
    """Cubic convolution (Keys 1981, a = -1/2)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _each(weigh: Callable[[float], float]) -> Callable[[Distances], Distances]:
    """By the C library's functions, one distance at a time: NumPy's own sine differs in the last bit."""
    return np.vectorize(weigh, otypes=[np.float64])


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0.0 or x >= 1.0:
        return float(x == 0.0)
    x *= math.pi
    return math.sin(x) / x * (float(np.float32(0.54)) + float(np.float32(0.46)) * math.cos(x))


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


KERNELS: Mapping[str, Kernel] = {
    "box": Kernel(0.5, _box),
    "bilinear": Kernel(1.0, _bilinear),
    "hamming": Kernel(1.0, _each(_hamming)),
    "bicubic": Kernel(2.0, _bicubic),
    "lanczos": Kernel(3.0, _each(_lanczos)),
}
