"""Image size of a Hugging Face classifier that takes any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.fields import SIDE, shown
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.huggingface.fields import DEFAULT_IMAGE_SIZE, RELEASED_SIZE, Size, pair
from perceiver_deploy.checkpoints.huggingface.image_processor import PREPROCESSOR, FoundProcessing
from perceiver_deploy.checkpoints.loaded import LoadOptions, option
from perceiver_runtime.errors import CheckpointError, UsageError
from perceiver_runtime.processing.pixels import final_size

SMALLEST = {"PerceiverForImageClassificationConvProcessing": 5}
"""Pixels of a side that leave a token, where it takes more than one."""


@dataclass(frozen=True)
class InputSize:
    """Height and width in pixels (None: the class has a fixed size), and a note for users."""

    pixels: Size | None
    notes: tuple[str, ...] = ()


def input_size(
    directory: Path, settings: Mapping[str, Any], options: LoadOptions, name: str, processor: FoundProcessing | None
) -> InputSize:
    """The requested size, else that of the preprocessor, else the config's, else 224 x 224 with a note.

    Raises:
        UsageError: A requested size that the class can't have.
        CheckpointError: The same of a size in a file.
    """
    smallest = SMALLEST.get(name, 1)
    if options.image_size is not None:
        if min(options.image_size) < smallest:
            raise UsageError(
                f"{option('image_size')}: {name} needs at least {smallest} x {smallest} pixels, "
                f"got {options.image_size[0]} x {options.image_size[1]}"
            )
        return InputSize(options.image_size)
    found = _made(processor) or _resized(directory / PREPROCESSOR) or _configured(settings)
    if found is None:
        height, width = RELEASED_SIZE
        return InputSize(
            RELEASED_SIZE,
            (
                f"{directory}: neither {PREPROCESSOR} nor config.json says how large images are; {height} x {width} "
                f"pixels are assumed: set another size with {option('image_size')}",
            ),
        )
    if min(found) < smallest:
        raise CheckpointError(f"{directory}: {name} needs at least {smallest} x {smallest} pixels, got {found}")
    return InputSize(found)


def _made(processor: FoundProcessing | None) -> Size | None:
    """The size of all images that a known processor makes, if it is one."""
    if processor is None or processor.image is None or not (size := final_size(processor.image)):
        return None
    return size[0], size[1]


def _resized(path: Path) -> Size | None:
    """The size to which the preprocessor resizes images, if it does."""
    if not path.is_file():
        return None
    preprocessor = read_json(path)
    size = preprocessor.get("size")
    if not preprocessor.get("do_resize", True) or size is None:
        return None
    if isinstance(size, dict) and not {"height", "width"} <= set(size):
        return None  # the shortest edge alone: images keep their own shapes
    sides = (size["height"], size["width"]) if isinstance(size, dict) else (size, size)
    if not all(map(SIDE.holds, sides)):
        raise CheckpointError(f"{path}: size: expected {SIDE.expected}, or height and width, got {shown(size)}")
    return sides


def _configured(settings: Mapping[str, Any]) -> Size | None:
    """The config's image_size unless it is the default, which transformers fills in and the class ignores."""
    if settings["image_size"] == DEFAULT_IMAGE_SIZE:
        return None
    return pair(settings["image_size"])
