"""Images as a classifier takes them: crop, resize, rescale, normalise, by the settings of its checkpoint.

Equal to transformers' image processors on Pillow, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.expect import expect
from perceiver_runtime.processing.labels import Floats, Prediction, top_k
from perceiver_runtime.processing.resample import Pixels, resize
from perceiver_runtime.settings import ImageSettings
from perceiver_runtime.tensors import Array, TensorSpec, is_whole

MAX_SIDE = 1 << 16


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


@dataclass(frozen=True)
class ImageConfig:
    """Settings of image preprocessing.

    Attributes:
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        crop: Side of the centre square that is kept, as a fraction of the shorter side (224 / 256).
        mean: Mean of each channel for pixels in [0, 1]; the default is ImageNet's.
        std: Standard deviation of each channel; the default is ImageNet's.
    """

    height: int = 224
    width: int = 224
    crop: float = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not (_is_number(self.crop) and 0.0 < self.crop <= 1.0):
            raise UsageError(f"image: expected a crop of more than 0, at most 1, got {self.crop!r:.40}")
        if not all(is_whole(size) and 1 <= size <= MAX_SIDE for size in (self.height, self.width)):
            raise UsageError(f"image: expected a height and width of 1 to {MAX_SIDE}, got {self.height} x {self.width}")
        channels = (self.mean, self.std)
        if (
            not all(
                isinstance(each, (tuple, list)) and len(each) == 3 and all(map(_is_number, each)) for each in channels
            )
            or not min(self.std) > 0.0
        ):
            raise UsageError(f"image: expected three means and three positive deviations, got {self.mean}, {self.std}")

    @property
    def settings(self) -> ImageSettings:
        """The same as a manifest stores it."""
        return ImageSettings(
            crop=(self.crop, self.crop), size=(self.height, self.width), mean=tuple(self.mean), std=tuple(self.std)
        )


def preprocess(images: Sequence[Pixels], config: ImageConfig | None = None) -> dict[str, Floats]:
    """Preprocess images.

    Args:
        images: RGB images (H, W, 3), uint8; sizes may differ.
        config: Settings; None takes those of the released models.

    Returns:
        `pixel_values` (B, 3, height, width), float32.

    Raises:
        FeedError: An image has another shape or type.
    """
    if not (isinstance(images, Sequence) or (isinstance(images, np.ndarray) and images.ndim)) or not len(images):
        raise FeedError(f"images: expected a sequence of at least one image, got {type(images).__name__}")
    settings = (config or ImageConfig()).settings
    return {"pixel_values": np.stack([image_values(image, settings) for image in images])}


def image_values(image: Pixels, settings: ImageSettings) -> Floats:
    """One image (H, W, channels) of 8 bits, or (H, W) if it is grey, to (channels, height, width)."""
    if isinstance(image, np.ndarray) and image.ndim == 2 and settings.channels == 1:
        image = image[:, :, None]
    colours = {1: "grey", 3: "RGB"}.get(settings.channels, f"{settings.channels} channels")
    spec = TensorSpec("image", "uint8", ("height", "width", settings.channels))
    expect(spec, image, f"convert it to 8-bit {colours}, channels last")
    pixels = sized(image, settings)
    values: Floats = pixels.astype(np.float32)
    if settings.scale is not None:
        values = (pixels.astype(np.float64) * settings.scale).astype(np.float32)
    if settings.mean:
        mean, std = (np.array(each, np.float32) for each in (settings.mean, settings.std))
        values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def sized(image: Pixels, settings: ImageSettings) -> Pixels:
    """An image after all steps that leave it in 8 bits: crop, resize, crop."""
    if settings.crop:
        image = center_crop(image, settings.crop)
    if settings.size:
        image = resize(image, *settings.size)
    return image


def check_settings(settings: ImageSettings, spec: TensorSpec | None) -> None:
    """Refuse settings that can't be applied, or do not fit the input. Raises UsageError."""


def fitted(values: Array, spec: TensorSpec | None) -> Array:
    """The values of one item, if they fit an input (batch, ...). Raises FeedError."""
    if spec is not None:
        one = TensorSpec(spec.name, spec.dtype, spec.shape[1:])
        expect(one, values, "give it in the size that the model takes")
    return values


def center_crop(image: Pixels, fractions: Sequence[float]) -> Pixels:
    """The centre of an image (H, W, C) whose sides are fractions of its shorter side, rounded down."""
    shorter = min(image.shape[:2])
    height, width = (int(fraction * shorter) for fraction in fractions)
    if min(height, width) < 1:
        least = math.ceil(1 / min(fractions))
        raise FeedError(f"image: expected a shorter side of at least {least}, got {list(image.shape[:2])}")
    return cut_out(image, height, width)


def cut_out(image: Pixels, height: int, width: int) -> Pixels:
    """The middle (height, width) of an image (H, W, C), with zeros around one that is smaller."""
    rows, columns = (max(wanted - size, 0) for wanted, size in zip((height, width), image.shape, strict=False))
    if rows or columns:
        image = np.pad(image, (((rows + 1) // 2, rows // 2), ((columns + 1) // 2, columns // 2), (0, 0)))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def classify(
    session: Session, images: Sequence[Pixels], config: ImageConfig | None = None, k: int = 5
) -> list[list[Prediction]]:
    """Classify images.

    Args:
        session: A session of an image classifier.
        images: RGB images (H, W, 3), uint8; sizes may differ.
        config: Settings of preprocessing; the image size is the bundle's.
        k: Number of classes per image.

    Returns:
        The `k` most likely classes of each image, best first.

    Raises:
        UsageError: The bundle is no image classifier, or `k` is out of range.
        FeedError: An image has another shape or type.
    """
    spec = next((spec for spec in session.inputs if spec.name == "pixel_values"), None)
    if spec is None or spec.rank != 4 or spec.shape[1] != 3:
        got = ", ".join(map(str, session.inputs))
        raise UsageError(f"bundle: expected an input pixel_values: float32[batch, 3, height, width], got {got}")
    height, width = spec.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UsageError(f"pixel_values: expected a bundle of one image size, got {height} x {width}")
    feeds = preprocess(images, replace(config or ImageConfig(), height=height, width=width))
    return top_k(session.run(feeds, ["logits"])["logits"], session.manifest.labels, k)
