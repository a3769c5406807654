"""Optical flow between frames of any size, one pair or a whole video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.labels import Floats
from perceiver_runtime.processing.patches import PATCH_CHANNELS, gather_patches, normalise
from perceiver_runtime.processing.tiling import Blend, Tiling

Frame = npt.NDArray[np.uint8]
KEPT_TILES = 9
"""Tiles whose inputs stay in memory during a video, 39 MB each at the released size: those of a frame of 720 x 1280."""


@dataclass(frozen=True)
class FlowOptions:
    """Settings of optical flow: tiles share at least `overlap` pixels, and `scale` times the output is the flow."""

    overlap: int = 20
    scale: float = 20.0


def predict_flow(session: Session, first: Frame, second: Frame, options: FlowOptions | None = None) -> Floats:
    """Optical flow between two frames.

    Args:
        session: A session of an optical flow model.
        first: RGB frame (H, W, 3), uint8. A frame smaller than the bundle's size is padded by its edge, a larger one is
            processed in tiles.
        second: RGB frame of the same size.
        options: Settings; None takes those of the bundle, or else of the released model.

    Returns:
        Flow (H, W, 2) in pixels, rightwards and downwards, from the first frame to the second.

    Raises:
        FeedError: A frame has another shape or type, or the sizes differ.
        UsageError: The bundle is no optical flow model.
    """
    return next(_stream(session, (first, second), options, kept_tiles=0))


def stream_flow(session: Session, frames: Iterable[Frame], options: FlowOptions | None = None) -> Iterator[Floats]:
    """Optical flow of a video, identical to `predict_flow` on each pair of frames.

    Args:
        session: A session of an optical flow model.
        frames: RGB frames (H, W, 3), uint8, of one size.
        options: Settings; None takes those of the bundle, or else of the released model.

    Returns:
        Flow (H, W, 2) from each frame to the next. The pixels of a frame, and the patches of its first `KEPT_TILES`
        tiles, are computed once for both pairs that it belongs to.

    Raises:
        FeedError: A frame has another shape or type, or the sizes differ.
        UsageError: The bundle is no optical flow model.
    """
    return _stream(session, frames, options, KEPT_TILES)


def _stream(
    session: Session, frames: Iterable[Frame], options: FlowOptions | None, kept_tiles: int
) -> Iterator[Floats]:
    options, size = options or _options(session), _tile_size(session)
    inputs = _Inputs(size, kept_tiles)
    previous: _Frame | None = None
    for number, frame in enumerate(frames):
        current = _prepared(frame, size)
        if previous is not None:
            if current.shape != previous.shape:
                raise FeedError(
                    f"frame {number}: expected the size of the frame before, {list(previous.shape)}, "
                    f"got {list(current.shape)}; resize it"
                )
            yield _flow(session, previous, current, inputs, options)
        previous = current


@dataclass(frozen=True)
class _Frame:
    """Normalised pixels (3, h, w), at least a tile, and the frame's own height and width."""

    pixels: Floats
    shape: tuple[int, int]


class _Inputs:
    """The network's inputs (1, 2, 27, h, w), tile by tile, of one pair of frames after the other."""

    def __init__(self, size: tuple[int, int], kept_tiles: int) -> None:
        self.size = size
        self._kept_tiles = kept_tiles
        self._kept: dict[int, Floats] = {}
        self._other = self._empty()

    def fill(self, tile: int, first: Floats, second: Floats) -> Floats:
        """Patches of one tile (3, h, w) of both frames; good until the tile is filled again, or another is."""
        inputs = self._kept.get(tile)
        if inputs is not None:
            inputs[0, 0] = inputs[0, 1]
        else:
            inputs = self._other
            if tile < self._kept_tiles:
                inputs = self._kept[tile] = self._empty()
            gather_patches(first, inputs[0, 0])
        gather_patches(second, inputs[0, 1])
        return inputs

    def _empty(self) -> Floats:
        return np.empty((1, 2, PATCH_CHANNELS, *self.size), np.float32)


def _prepared(frame: Frame, size: tuple[int, int]) -> _Frame:
    pixels = normalise(frame)
    height, width = pixels.shape[1:]
    missing = (max(size[0] - height, 0), max(size[1] - width, 0))
    padded = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge") if any(missing) else pixels
    return _Frame(padded, (height, width))


def _flow(session: Session, first: _Frame, second: _Frame, inputs: _Inputs, options: FlowOptions) -> Floats:
    height, width = first.pixels.shape[1:]
    tiling = Tiling(height, width, *inputs.size, overlap=options.overlap)
    blend = Blend(tiling, 2)
    for tile, (rows, columns) in enumerate(tiling.windows):
        pair = inputs.fill(tile, first.pixels[:, rows, columns], second.pixels[:, rows, columns])
        flow = session.run({"inputs": pair}, ["flow"])["flow"].astype(np.float32, copy=False)
        blend.add((rows, columns), flow.reshape(*inputs.size, 2) * np.float32(options.scale))
    return blend.result()[: first.shape[0], : first.shape[1]]


def _options(session: Session) -> FlowOptions:
    """Those of the bundle, if it states them."""
    stated = session.manifest.processing.flow if session.manifest.processing is not None else None
    return FlowOptions(stated.overlap, stated.scale) if stated is not None else FlowOptions()


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
