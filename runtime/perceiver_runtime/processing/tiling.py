"""Frames of any size through a model of one size: overlapping tiles, blended where they overlap.

The tiles and weights are those of the demonstration that was published with the model: a stride of the tile's size
less the overlap, the last tile flush with the frame, and weights that fall towards a tile's edge. Where the
demonstration makes a tile that leaves the frame, or the last tile twice, there is one tile less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import UsageError
from perceiver_runtime.processing.labels import Floats

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles of a frame (height, width) of at least one tile; neighbours share at least `overlap` pixels."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    overlap: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < min(self.tile_height, self.tile_width):
            raise UsageError(
                f"tiling: expected an overlap of 0 to {min(self.tile_height, self.tile_width) - 1}, got {self.overlap}"
            )
        if self.height < self.tile_height or self.width < self.tile_width:
            raise UsageError(
                f"tiling: expected a frame of at least {self.tile_height} x {self.tile_width}, "
                f"got {self.height} x {self.width}; pad it"
            )

    @property
    def windows(self) -> tuple[Window, ...]:
        """Rows and columns of each tile."""
        return tuple(
            (slice(y, y + self.tile_height), slice(x, x + self.tile_width))
            for y in _starts(self.height, self.tile_height, self.overlap)
            for x in _starts(self.width, self.tile_width, self.overlap)
        )

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """How much each pixel of a tile counts (tile_height, tile_width): its distance to the tile's edge, from 1."""
        return np.minimum(_distances(self.tile_height)[:, None], _distances(self.tile_width)[None])


class Blend:
    """Weighted mean of tiles (h, w, C) over a frame, exact where tiles agree, because it accumulates in FP64."""

    def __init__(self, tiling: Tiling, channels: int) -> None:
        self._weights = tiling.weights[..., None]
        self._sum = np.zeros((tiling.height, tiling.width, channels))
        self._total = np.zeros((tiling.height, tiling.width, 1))

    def add(self, window: Window, tile: Floats) -> None:
        """Add one tile, whose values are at the rows and columns of the window."""
        self._sum[window] += self._weights * tile
        self._total[window] += self._weights

    def result(self) -> Floats:
        """The weighted mean (H, W, C) of all tiles; every pixel must have been in one."""
        return (self._sum / self._total).astype(np.float32)


def _starts(size: int, tile: int, overlap: int) -> tuple[int, ...]:
    stride = tile - overlap
    return (*range(0, size - tile, stride), size - tile)


def _distances(size: int) -> npt.NDArray[np.float64]:
    steps = np.arange(size, dtype=np.float64)
    return np.minimum(steps + 1, size - steps)
