"""Images for a classifier, and its classes: `classify`. `preprocess` has the settings of the released classifiers.

Equal to transformers' image processors on Pillow, to the last bit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.labels import Floats, Prediction, top_k
from perceiver_runtime.processing.pixels import MAX_SIDE, center_crop, image_values, is_number
from perceiver_runtime.processing.processor import processor_of
from perceiver_runtime.processing.resample import Pixels
from perceiver_runtime.settings import ImageSettings
from perceiver_runtime.tensors import Array, is_whole

__all__ = ["ImageConfig", "center_crop", "classify", "pixel_values", "preprocess"]

LOGGER = logging.getLogger(__name__)


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
        if not (is_number(self.crop) and 0.0 < self.crop <= 1.0):
            raise UsageError(f"image: expected a crop of more than 0, at most 1, got {self.crop!r:.40}")
        if not all(is_whole(size) and 1 <= size <= MAX_SIDE for size in (self.height, self.width)):
            raise UsageError(f"image: expected a height and width of 1 to {MAX_SIDE}, got {self.height} x {self.width}")
        channels = (self.mean, self.std)
        if (
            not all(
                isinstance(each, (tuple, list)) and len(each) == 3 and all(map(is_number, each)) for each in channels
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
    return {"pixel_values": np.stack([pixel_values(image, config or ImageConfig()) for image in images])}


def pixel_values(image: Pixels, config: ImageConfig) -> Floats:
    """One RGB image (H, W, 3) of 8 bits to (3, height, width)."""
    return image_values(image, config.settings)


def classify(
    session: Session, images: Sequence[Any], config: ImageConfig | None = None, k: int = 5
) -> list[list[Prediction]]:
    """Classify images, or whatever else the bundle's processing takes, such as texts.

    Args:
        session: A session of a classifier.
        images: Images (H, W, C), uint8; sizes may differ. For other models, items as `Processor.encode` takes them.
        config: Settings of preprocessing; the image size is the bundle's. None takes those of the bundle. A bundle that
            states nothing, as those of older versions, gets those of the released models, and a warning.
        k: Number of classes per image.

    Returns:
        The `k` most likely classes of each image, best first: of the output `logits`, or else of the first one that
        holds scores of classes.

    Raises:
        UsageError: The bundle is no classifier, the processing of its checkpoint is not known, or `k` is out of range.
        FeedError: An image has another shape or type.
    """
    manifest = session.manifest
    if config is not None or manifest.processing is None:
        if config is None:
            LOGGER.warning("%s", STATED.format(bundle=session.bundle.path))
        return top_k(_scores(session, preprocess(images, _fixed(session, config))), manifest.labels, k)
    processor = processor_of(manifest)
    outputs = [spec.name for spec in session.outputs if processor.holds_classes(spec)]
    if not outputs:
        raise UsageError(f"bundle: expected an output of classes, got {', '.join(map(str, session.outputs))}")
    (name, *_) = outputs
    scores = session.run(processor.encode(images), [name])[name]
    return top_k(scores, processor.labels(name, manifest.labels), k)


STATED = (
    "warning: {bundle} does not say how images become its inputs: those of the released models are assumed; pass a "
    "config, or export it again"
)


def _scores(session: Session, feeds: dict[str, Array]) -> Array:
    return session.run(feeds, ["logits"])["logits"]


def _fixed(session: Session, config: ImageConfig | None) -> ImageConfig:
    """The settings with the bundle's image size. Raises UsageError if it takes no RGB images of one."""
    spec = next((spec for spec in session.inputs if spec.name == "pixel_values"), None)
    if spec is None or spec.rank != 4 or spec.shape[1] != 3:
        got = ", ".join(map(str, session.inputs))
        raise UsageError(f"bundle: expected an input pixel_values: float32[batch, 3, height, width], got {got}")
    height, width = spec.shape[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UsageError(f"pixel_values: expected a bundle of one image size, got {height} x {width}")
    return replace(config or ImageConfig(), height=height, width=width)
