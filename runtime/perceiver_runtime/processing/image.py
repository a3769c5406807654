"""Images as the released classifiers take them: centre crop, bicubic resize, rescale, normalise.

Equal to the image processor of the released checkpoints (on Pillow), in this order, to the last bit.
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
from perceiver_runtime.tensors import TensorSpec, is_whole

IMAGE = TensorSpec("image", "uint8", ("height", "width", 3))

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
    return {"pixel_values": np.stack([pixel_values(image, config or ImageConfig()) for image in images])}


def pixel_values(image: Pixels, config: ImageConfig) -> Floats:
    """One RGB image (H, W, 3) of 8 bits to (3, height, width)."""
    expect(IMAGE, image, "convert it to 8-bit RGB, channels last")
    sized = resize(center_crop(image, config.crop), config.height, config.width)
    rescaled = (sized.astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised = (rescaled - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def center_crop(image: Pixels, fraction: float) -> Pixels:
    """The centre square of an image (H, W, C) whose side is `fraction` of the shorter side, rounded down."""
    height, width = image.shape[:2]
    side = int(fraction * min(height, width))
    if side < 1:
        raise FeedError(f"image: expected a shorter side of at least {math.ceil(1 / fraction)}, got {[height, width]}")
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


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
