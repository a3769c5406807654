"""Optical flow between frames of any size, one pair or a whole video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.processing.labels import Floats
from perceiver_runtime.processing.patches import PATCH_CHANNELS, gather_patches, normalise
from perceiver_runtime.processing.tiling import Blend, Tiling
from perceiver_runtime.session import Session

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FlowOptions:
    """`overlap` is how many pixels tiles share at least; `scale` times the network's output is the flow in pixels."""

    overlap: int = 20
    scale: float = 20.0


def predict_flow(session: Session, first: Frame, second: Frame, options: FlowOptions | None = None) -> Floats:
    """Flow (H, W, 2) in pixels, rightwards and downwards, from the first of two RGB frames (H, W, 3) to the second.

    A frame smaller than the bundle's size is continued by its edge, a larger one is cut into tiles. Raises FeedError
    for another shape or dtype, or frames of two sizes; UsageError for a bundle that is no optical flow model.
    """
    return next(stream_flow(session, (first, second), options))


def stream_flow(session: Session, frames: Iterable[Frame], options: FlowOptions | None = None) -> Iterator[Floats]:
    """Flow (H, W, 2) from each frame of a video to the next, as `predict_flow` gives it.

    What is made of a frame for one pair is kept for the next; one tile's patches are in memory at a time.
    """
    options, size = options or FlowOptions(), _tile_size(session)
    previous: _Frame | None = None
    for number, frame in enumerate(frames):
        current = _prepared(frame, size)
        if previous is not None:
            if current.shape != previous.shape:
                raise FeedError(
                    f"frame {number}: expected the size of the frame before, {list(previous.shape)}, "
                    f"got {list(current.shape)}; resize it"
                )
            yield _flow(session, previous, current, size, options)
        previous = current


@dataclass(frozen=True)
class _Frame:
    """Normalised pixels (3, h, w), at least a tile, and the frame's own height and width."""

    pixels: Floats
    shape: tuple[int, int]


def _prepared(frame: Frame, size: tuple[int, int]) -> _Frame:
    pixels = normalise(frame)
    height, width = pixels.shape[1:]
    missing = (max(size[0] - height, 0), max(size[1] - width, 0))
    padded = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge") if any(missing) else pixels
    return _Frame(padded, (height, width))


def _flow(session: Session, first: _Frame, second: _Frame, size: tuple[int, int], options: FlowOptions) -> Floats:
    height, width = first.pixels.shape[1:]
    tiling = Tiling(height, width, *size, overlap=options.overlap)
    blend = Blend(tiling, 2)
    inputs: Floats = np.empty((1, 2, PATCH_CHANNELS, *size), np.float32)
    for rows, columns in tiling.windows:
        gather_patches(first.pixels[:, rows, columns], inputs[0, 0])
        gather_patches(second.pixels[:, rows, columns], inputs[0, 1])
        tile = session.run({"inputs": inputs}, ["flow"])["flow"].astype(np.float32, copy=False)
        blend.add((rows, columns), tile.reshape(*size, 2) * np.float32(options.scale))
    return blend.result()[: first.shape[0], : first.shape[1]]


def _tile_size(session: Session) -> tuple[int, int]:
    spec = next((spec for spec in session.inputs if spec.name == "inputs"), None)
    shape = spec.shape if spec else ()
    if len(shape) != 5 or shape[1:3] != (2, PATCH_CHANNELS):
        names = ", ".join(map(str, session.inputs))
        raise UsageError(f"bundle: expected an input inputs: float32[batch, 2, {PATCH_CHANNELS}, H, W], got {names}")
    height, width = shape[3:]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UsageError(f"inputs: expected a bundle of one frame size, got {height} x {width}")
    return height, width
