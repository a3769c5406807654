"""One image of 8 bits to the values that a model takes: crop, resize, crop, rescale, normalise.

Equal to transformers' image processors on Pillow, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import get_args

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.processing.expect import expect
from perceiver_runtime.processing.labels import Floats
from perceiver_runtime.processing.resample import Pixels, resize, rows_go_first
from perceiver_runtime.settings import Filter, ImageSettings
from perceiver_runtime.tensors import Array, TensorSpec, is_whole

MAX_SIDE = 1 << 16
COLOURS = {1: "grey", 3: "RGB"}


def image_values(image: Pixels, settings: ImageSettings) -> Array:
    """One image of 8 bits as the model takes it.

    Args:
        image: (H, W, channels), or (H, W) if it is grey; for a model that takes frames, a frame of its format.
        settings: The steps.

    Returns:
        (channels, height, width) in FP32; frames as they are.

    Raises:
        FeedError: The image has another shape or type.
    """
    if settings.format == "nv12":
        expect(TensorSpec("image", "uint8", ("height * 3 / 2", "width")), image, "give frames in NV12")
        return image
    if isinstance(image, np.ndarray) and image.ndim == 2 and settings.channels == 1:
        image = image[:, :, None]
    spec = TensorSpec("image", "uint8", ("height", "width", settings.channels))
    colours = COLOURS.get(settings.channels, f"{settings.channels} channels")
    expect(spec, image, f"convert it to 8-bit {colours}, channels last")
    return image if settings.format == "uint8" else _normalised(sized(image, settings), settings)


def _normalised(pixels: Pixels, settings: ImageSettings) -> Floats:
    """(H, W, C) of 8 bits to (C, H, W). A product in FP64, then FP32, as transformers computes it."""
    values: Floats = pixels.astype(np.float32)
    if settings.scale is not None:
        values = (pixels.astype(np.float64) * settings.scale).astype(np.float32)
    if settings.mean:
        mean, std = (np.array(each, np.float32) for each in (settings.mean, settings.std))
        values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def sized(image: Pixels, settings: ImageSettings) -> Pixels:
    """An image (H, W, C) after the steps that leave it in 8 bits: crop, resize, crop."""
    if settings.crop:
        image = center_crop(image, *settings.crop)
    old = image.shape[0], image.shape[1]
    if new := resized_size(*old, settings):
        image = resize(image, new[0], new[1], settings.filter, rows_first=rows_go_first(*old, new[0], new[1]))
    return cut_out(image, *settings.center_crop) if settings.center_crop else image


def resized_size(height: int, width: int, settings: ImageSettings) -> tuple[int, ...]:
    """The size to which an image of this size is resized; none if it is not."""
    if settings.shortest_edge is None:
        return settings.size
    shorter, longer = sorted((height, width))
    other = int(settings.shortest_edge * longer / shorter)
    return (other, settings.shortest_edge) if width <= height else (settings.shortest_edge, other)


def center_crop(image: Pixels, height: float, width: float | None = None) -> Pixels:
    """The centre of an image (H, W, C), whose sides are fractions of its shorter side, rounded down; or a square.

    Raises FeedError for an image too small to leave a pixel.
    """
    fractions, shorter = (height, height if width is None else width), min(image.shape[:2])
    rows, columns = (int(fraction * shorter) for fraction in fractions)
    if min(rows, columns) < 1:
        least = math.ceil(1 / min(fractions))
        raise FeedError(f"image: expected a shorter side of at least {least}, got {list(image.shape[:2])}")
    return cut_out(image, rows, columns)


def cut_out(image: Pixels, height: int, width: int) -> Pixels:
    """The middle (height, width) of an image (H, W, C), with zeros around one that is smaller."""
    rows, columns = (max(wanted - size, 0) for wanted, size in zip((height, width), image.shape, strict=False))
    if rows or columns:
        image = np.pad(image, (((rows + 1) // 2, rows // 2), ((columns + 1) // 2, columns // 2), (0, 0)))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def final_size(settings: ImageSettings) -> tuple[int, ...]:
    """Height and width of all results; none if they depend on the image."""
    return settings.center_crop or (settings.size if settings.shortest_edge is None else ())


def fitted(values: Array, spec: TensorSpec | None) -> Array:
    """The values of one item, if they fit an input (batch, ...). Raises FeedError."""
    if spec is not None:
        expect(TensorSpec(spec.name, spec.dtype, spec.shape[1:]), values, "give it in the size that the model takes")
    return values


def check_settings(settings: ImageSettings, spec: TensorSpec | None) -> None:
    """Refuse settings that can't be applied, or whose results do not fit the input `spec`. Raises UsageError."""
    for name, holds, expected in (
        ("channels", is_whole(settings.channels) and 1 <= settings.channels <= 1024, "1 to 1024"),
        ("crop", _are(settings.crop, is_fraction, 2), "two positive fractions, or none"),
        ("size", _are(settings.size, is_side, 2), f"height and width of 1 to {MAX_SIDE}, or none"),
        ("shortest_edge", settings.shortest_edge is None or is_side(settings.shortest_edge), f"1 to {MAX_SIDE}"),
        ("filter", settings.filter in get_args(Filter), f"one of {', '.join(get_args(Filter))}"),
        ("center_crop", _are(settings.center_crop, is_side, 2), f"height and width of 1 to {MAX_SIDE}, or none"),
        ("scale", settings.scale is None or is_number(settings.scale), "a finite number"),
        ("mean", _are(settings.mean, is_number, settings.channels), "one for each channel, or none"),
        ("std", _are(settings.std, is_positive, len(settings.mean)), "a positive one for each mean"),
    ):
        if not holds:
            got = getattr(settings, name)
            raise UsageError(f"processing: image: {name}: expected {expected}, got {got!r:.80}; export again")
    if settings.shortest_edge is not None and settings.size:
        raise UsageError(f"processing: image: expected size or shortest_edge, got {settings.size} and both")
    if spec is None or settings.format != "float":
        return
    made = (settings.channels, *(final_size(settings) or spec.shape[2:]))
    if spec.rank != 4 or any(isinstance(n, int) and n != own for n, own in zip(spec.shape[1:], made, strict=True)):
        raise UsageError(
            f"processing: image: expected to make {spec}, got {list(made)} for each image; "
            "correct the checkpoint's preprocessor_config.json and export again"
        )


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def is_positive(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    return is_number(value) and bool(value > 0)  # type: ignore[operator]


def is_fraction(value: object) -> bool:
    """Whether a value is a fraction of a side, which may be larger than the side."""
    return is_positive(value) and bool(value <= MAX_SIDE)  # type: ignore[operator]


def is_side(value: object) -> bool:
    """Whether a value is a number of pixels."""
    return is_whole(value) and is_fraction(value)


def _are(values: Sequence[object], holds: Callable[[object], bool], count: int) -> bool:
    return isinstance(values, (tuple, list)) and len(values) in (0, count) and all(map(holds, values))
