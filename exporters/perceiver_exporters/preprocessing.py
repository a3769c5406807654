"""Image preprocessing as a component: a model that takes `pixel_values` takes frames of 8 bits as cameras give them.

Resizing is a product with a constant matrix for each axis, whose rows are the taps of the runtime's resampling.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_exporters.component import Component, Cut
from perceiver_runtime.errors import UsageError
from perceiver_runtime.pipeline import Step
from perceiver_runtime.processing.pixels import final_size, resized_size
from perceiver_runtime.processing.resample import Pixels, nearest, rows_go_first, taps
from perceiver_runtime.settings import Filter, ImageSettings, PixelFormat
from perceiver_runtime.tensors import TensorSpec

NAME, FRAMES = "preprocess", "frames"
MIDDLE = 128.0
"""Pixels are taken from this level on: -128 to 127 are exact in FP16, and with one scale in INT8."""
BT601 = ((1.164383, 0.0, 1.596027), (1.164383, -0.391762, -0.812968), (1.164383, 2.017232, 0.0))
"""Red, green and blue of Y - 16, U - 128 and V - 128: ITU-R BT.601 in video range."""


@dataclass(frozen=True)
class Frames:
    """Frames of one size: `uint8` (batch, height, width, channels), or `nv12` (batch, height * 3 / 2, width)."""

    height: int
    width: int
    format: PixelFormat = "uint8"

    def spec(self, channels: int) -> TensorSpec:
        """The input that takes them."""
        if self.format == "nv12":
            return TensorSpec(FRAMES, "uint8", ("batch", self.height * 3 // 2, self.width))
        return TensorSpec(FRAMES, "uint8", ("batch", self.height, self.width, channels))

    def random(self, channels: int, batch: int, random: np.random.Generator) -> Pixels:
        """Frames (batch, ...) of random patches, which stay apart from each other when they are resized."""
        shape = self.spec(channels).resolve({"batch": batch})
        patches = random.integers(0, 256, (batch, *(min(8, size) for size in shape[1:3]), *shape[3:]))
        rows, columns = (nearest(patches.shape[axis], shape[axis]) for axis in (1, 2))
        frames: Pixels = np.clip(patches[:, rows][:, :, columns] + random.integers(-16, 17, shape), 0, 255).astype(
            np.uint8
        )
        return frames


class Preprocess(nn.Module):
    """Frames to `pixel_values` (batch, channels, height, width).

    Sums are clipped to 8 bits after each axis, as the runtime clips them, and never rounded: see `difference`.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, settings: ImageSettings, frames: Frames) -> None:
        super().__init__()
        self.frames = frames
        height, width = _cropped(settings, frames)
        self.crop_size = (height, width)
        size = resized_size(height, width, settings) or (height, width)
        axes = {2: (height, size[0]), 3: (width, size[1])}
        order = (2, 3) if rows_go_first(height, width, size[0], size[1]) else (3, 2)
        self.resizes = nn.ModuleList(
            Resize(axis, *axes[axis], settings.filter) for axis in order if axes[axis][0] != axes[axis][1]
        )
        self.final_size = settings.center_crop
        scale = 1.0 if settings.scale is None else settings.scale
        mean, std = (
            np.array(each, np.float64).reshape(-1, 1, 1) for each in (settings.mean or (0,), settings.std or (1,))
        )
        self.register_buffer("gain", torch.tensor(scale / std, dtype=torch.float32), persistent=False)
        self.register_buffer(
            "offset", torch.tensor((MIDDLE * scale - mean) / std, dtype=torch.float32), persistent=False
        )
        self.colours = _constant(BT601)

    def forward(self, frames: Tensor) -> Tensor:
        """`frames` of the size and format that the component was made for."""
        # First of all: TensorRT casts bytes, and does nothing else with them.
        centred = frames.to(self.gain.dtype) - MIDDLE
        pixels = self._rgb(centred) if self.frames.format == "nv12" else centred.permute(0, 3, 1, 2)
        pixels = _cut_out(pixels, self.crop_size)
        for resize in self.resizes:
            pixels = resize(pixels).clamp(-MIDDLE, 255 - MIDDLE)
        if self.final_size:
            pixels = _cut_out(pixels, self.final_size)
        return pixels * self.gain + self.offset

    def _rgb(self, frames: Tensor) -> Tensor:
        """NV12: a plane of Y, and one of U and V in turn at half the size, of which each pixel is for four."""
        height, width = self.frames.height, self.frames.width
        luma = frames[:, None, :height] + (MIDDLE - 16.0)
        chroma = frames[:, height:].reshape(-1, height // 2, width // 2, 2).permute(0, 3, 1, 2)
        chroma = chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)
        rgb = F.conv2d(torch.cat((luma, chroma), 1), self.colours[:, :, None, None])
        return (rgb - MIDDLE).clamp(-MIDDLE, 255 - MIDDLE)


class Resize(nn.Module):
    """One axis of (batch, channels, height, width) resampled."""

    def __init__(self, axis: int, size: int, resized: int, filter: Filter) -> None:
        super().__init__()
        self.axis = axis
        matrix = resize_matrix(size, resized, filter)
        self.weight = _constant(matrix.T)

    def forward(self, pixels: Tensor) -> Tensor:
        """A product with the matrix (size, resized)."""
        if self.axis == 3:
            return pixels @ self.weight
        return (pixels.transpose(2, 3) @ self.weight).transpose(2, 3)


def resize_matrix(size: int, resized: int, filter: Filter) -> np.ndarray:
    """The weights (resized, size) of the pixels of an axis, as the runtime resamples it."""
    matrix = np.zeros((resized, size))
    rows = np.arange(resized)
    if filter == "nearest":
        matrix[rows, nearest(size, resized)] = 1.0
        return matrix
    sources, weights = taps(size, resized, filter)
    np.add.at(matrix, (rows[:, None], sources), weights / 2.0**22)
    return matrix


def difference(settings: ImageSettings, frames: Frames) -> float:
    """Most that a value of the component can differ from the runtime's, which rounds to 8 bits after each axis.

    A rounding is at most half a level; the second axis multiplies that of the first by the sum of its weights'
    magnitudes. Clipping makes no difference larger. FP32's own rounding is not counted.
    """
    module = Preprocess(settings, frames)
    levels = 0.5 if frames.format == "nv12" else 0.0
    rounded = 0.0 if settings.filter == "nearest" else 0.5
    for resize in module.resizes:
        assert isinstance(resize, Resize)
        levels = levels * float(resize.weight.abs().sum(0).max()) + rounded
    return levels * float(module.gain.abs().max())


def with_preprocessing(cut: Cut, settings: ImageSettings, frames: Frames) -> Cut:
    """The cut with a first component that makes an image input from frames.

    Args:
        cut: A model whose input `settings.input` takes images of one size.
        settings: How they are made.
        frames: What the model is to take instead.

    Returns:
        The cut; its input is called `frames`.

    Raises:
        UsageError: The model has no such input, or takes images of several sizes; or the frames can't be made into its
            images.
    """
    pixels = next((spec for spec in cut.pipeline.inputs if spec.name == settings.input), None)
    _check(cut, pixels, settings, frames)
    assert pixels is not None  # checked
    spec = frames.spec(settings.channels)
    made = Component(NAME, Preprocess(settings, frames).eval(), (spec,), (pixels,))
    step = Step(NAME, {FRAMES: FRAMES}, {pixels.name: pixels.name}, "encode")
    pipeline = dataclasses.replace(
        cut.pipeline,
        inputs=tuple(spec if each is pixels else each for each in cut.pipeline.inputs),
        steps=(step, *cut.pipeline.steps),
    )
    return dataclasses.replace(cut, components=(made, *cut.components), pipeline=pipeline)


def _check(cut: Cut, pixels: TensorSpec | None, settings: ImageSettings, frames: Frames) -> None:
    if pixels is None or pixels.rank != 4 or not all(isinstance(size, int) for size in pixels.shape[1:]):
        got = ", ".join(map(str, cut.pipeline.inputs))
        raise UsageError(f"{WHERE}: expected a model of images of one size, got {got}")
    if settings.input in cut.pipeline.defaults:
        raise UsageError(f"{WHERE}: {settings.input} may be left out, and frames may not; leave the option out")
    if clash := [c.name for c in cut.components if c.name == NAME] + [
        s.name for s in cut.pipeline.inputs if s.name == FRAMES
    ]:
        raise UsageError(f"{WHERE}: expected a model without a component or input of the name, got {clash[0]}")
    if frames.format == "nv12" and (settings.channels != 3 or frames.height % 2 or frames.width % 2):
        raise UsageError(
            f"{WHERE}: nv12 has colours and even sides, got {settings.channels} channels, "
            f"{frames.height} x {frames.width}"
        )
    height, width = _cropped(settings, frames)
    made = final_size(settings) or resized_size(height, width, settings) or (height, width)
    if tuple(made) != pixels.shape[2:]:
        raise UsageError(
            f"{WHERE}: frames of {frames.height} x {frames.width} become images of {made[0]} x {made[1]}, and the "
            f"model takes {pixels.shape[2]} x {pixels.shape[3]}; give another size"
        )


WHERE = "fold_preprocessing (--fold-preprocessing)"


def _cropped(settings: ImageSettings, frames: Frames) -> tuple[int, int]:
    """Height and width of what is cut out of a frame before it is resized. Raises UsageError if that is nothing."""
    if not settings.crop:
        return frames.height, frames.width
    shorter = min(frames.height, frames.width)
    height, width = (int(fraction * shorter) for fraction in settings.crop)
    if min(height, width) < 1:
        raise UsageError(f"{WHERE}: a frame of {frames.height} x {frames.width} is too small for the crop")
    return height, width


def _constant(values: ArrayLike) -> nn.Parameter:
    """A weight of a product, which has a precision as trained weights have."""
    return nn.Parameter(torch.tensor(np.asarray(values), dtype=torch.float32), requires_grad=False)


def _cut_out(pixels: Tensor, size: tuple[int, ...]) -> Tensor:
    """The middle of images (batch, channels, height, width), with black around smaller ones."""
    sizes = pixels.shape[2:]
    missing = [max(wanted - own, 0) for wanted, own in zip(size, sizes, strict=True)]
    if any(missing):
        rows, columns = missing
        sides = ((columns + 1) // 2, columns // 2, (rows + 1) // 2, rows // 2)
        pixels = F.pad(pixels, sides, value=-MIDDLE)
    top, left = ((own - wanted) // 2 for wanted, own in zip(size, pixels.shape[2:], strict=True))
    return pixels[:, :, top : top + size[0], left : left + size[1]]
