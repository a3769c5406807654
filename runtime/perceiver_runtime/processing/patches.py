"""Input of the optical flow model: every pixel with its 3 x 3 neighbourhood (Jaegle et al. 2021, section 4.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perceiver_runtime.processing.expect import expect
from perceiver_runtime.processing.labels import Floats
from perceiver_runtime.tensors import TensorSpec

FRAME = TensorSpec("frame", "uint8", ("height", "width", 3))
NEIGHBOURHOOD = 3
PATCH_CHANNELS = NEIGHBOURHOOD * NEIGHBOURHOOD * 3

LEVELS = (np.arange(256) / 255.0 * 2.0 - 1.0).astype(np.float32)
"""What each of the 256 levels of a pixel becomes: -1 to 1."""


def normalise(frame: npt.NDArray[np.uint8]) -> Floats:
    """An RGB frame (H, W, 3) of 8 bits to (3, H, W) in [-1, 1]. Raises FeedError."""
    expect(FRAME, frame, "convert it to 8-bit RGB, channels last")
    return LEVELS[frame.transpose(2, 0, 1)]


def gather_patches(tile: Floats, out: Floats) -> None:
    """Write the neighbourhoods of a normalised tile (3, h, w) into (27, h, w): rows, columns, then channels.

    Pixels outside of the tile count as 0, also where the frame continues, as in training.
    """
    height, width = tile.shape[1:]
    padded = np.pad(tile, ((0, 0), (1, 1), (1, 1)))
    planes = out.reshape(NEIGHBOURHOOD, NEIGHBOURHOOD, *tile.shape)
    for row in range(NEIGHBOURHOOD):
        for column in range(NEIGHBOURHOOD):
            planes[row, column] = padded[:, row : row + height, column : column + width]


def patches(frame: npt.NDArray[np.uint8]) -> Floats:
    """An RGB frame (H, W, 3) of 8 bits to its pixels' neighbourhoods (27, H, W). Raises FeedError."""
    normalised = normalise(frame)
    out: Floats = np.empty((PATCH_CHANNELS, *normalised.shape[1:]), np.float32)
    gather_patches(normalised, out)
    return out
