"""Images, frames, sounds and texts from files. Image files need Pillow; all others NumPy alone."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, PerceiverError, UnavailableError
from perceiver_runtime.format.arrays import stored_feeds
from perceiver_runtime.processing.resample import Pixels

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of an image of that many channels."""
EIGHT_BITS = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"))
MAX_CLAIM, MAX_PIXELS_PER_BYTE = 1 << 24, 1000
"""Pixels above which a file must have a byte for so many: a damaged header claims gigabytes."""
INSTALL = "pip install 'perceiver-runtime[images]'"


def read_image(path: Path, channels: int = 3) -> Pixels:
    """An image from a file, turned upright as its EXIF data say.

    Args:
        path: A file that Pillow reads, or an .npy file with the array itself.
        channels: 3 for RGB, 1 for grey; the image is converted.

    Returns:
        (H, W, channels) of 8 bits; the content of an .npy file as it is.

    Raises:
        FeedError: The file is no image, is damaged, or has more than 8 bits.
        UnavailableError: Pillow is not installed.
    """
    return next(read_frames(path, channels))


def read_frames(path: Path, channels: int = 3) -> Iterator[Pixels]:
    """Every frame of an image file, as an animated GIF has several. Raises as `read_image` does."""
    if path.suffix == ".npy":
        yield stored_feeds(None, [f"image={path}"])["image"].load()
        return
    pillow = _pillow(path)
    if channels not in MODES:
        raise FeedError(f"{path}: the model takes {channels} channels, which no image file has; give .npy files")
    number = 0
    while True:
        try:
            with pillow.Image.open(path) as image:
                if number >= getattr(image, "n_frames", 1):
                    return
                if image.width * image.height > max(MAX_CLAIM, MAX_PIXELS_PER_BYTE * path.stat().st_size):
                    raise FeedError(
                        f"{path}: expected an image with a byte for {MAX_PIXELS_PER_BYTE} pixels, got {image.width} x "
                        f"{image.height} in {path.stat().st_size} bytes; save it again, or make it smaller"
                    )
                image.seek(number)
                if image.mode not in EIGHT_BITS:
                    raise FeedError(f"{path}: expected an image of 8 bits, got Pillow's mode {image.mode}; convert it")
                frame = np.asarray(pillow.ImageOps.exif_transpose(image).convert(MODES[channels]))
        except (PerceiverError, MemoryError):
            raise
        except Exception as error:  # Pillow's readers of formats raise whatever a damaged file leads them to
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file system's, not the file's
            raise FeedError(f"{path}: expected an image: {error}; save it again") from error
        yield frame if frame.ndim == 3 else frame[:, :, None]
        number += 1


def read_sound(path: Path) -> npt.NDArray[np.int16]:
    """Samples (S,) of a WAV file of one channel and 16 bits. Raises FeedError."""
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getnchannels(), file.getsampwidth()
            if form != (1, 2):
                raise FeedError(f"{path}: expected one channel of 16 bits, got {form[0]} of {8 * form[1]}; convert it")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    except (wave.Error, EOFError, RuntimeError, ValueError) as error:
        raise FeedError(f"{path}: expected a WAV file: {error}; convert it") from error


def read_text(path: Path) -> str:
    """A text file in UTF-8, without the line's end at its end. Raises FeedError."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise FeedError(f"{path}: expected text in UTF-8: {error}; convert it") from error


def _pillow(path: Path) -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise UnavailableError(f"{path}: reading image files needs Pillow ({error}); {INSTALL}") from error
    return PIL
