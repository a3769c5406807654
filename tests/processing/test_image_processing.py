"""Images against Pillow's resampling and transformers' Perceiver image processor, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.image import ImageConfig, classify, preprocess
from perceiver_runtime.processing.resample import resize, taps

SIZES = st.integers(1, 200)


def picture(height: int, width: int, seed: int = 0, contrast: bool = False) -> np.ndarray:
    """Noise; with full contrast it makes the filter overshoot both ends of the range."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return np.where(noise > 127, 255, 0).astype(np.uint8) if contrast else noise


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 9), st.booleans())
def test_resampling_equals_pillow(height: int, width: int, rows: int, columns: int, seed: int, contrast: bool) -> None:
    image = picture(height, width, seed, contrast)
    # One axis after the other: Pillow 13 swaps them for some shapes, and rounds to 8 bits in between.
    wide = Image.fromarray(image).resize((columns, height), Image.Resampling.BICUBIC)
    expected = np.asarray(wide.resize((columns, rows), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, rows, columns), expected)


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, st.booleans())
def test_squares_equal_pillow_in_one_call(size: int, resized: int, contrast: bool) -> None:
    image = picture(size, size, 1, contrast)
    expected = np.asarray(Image.fromarray(image).resize((resized, resized), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, resized, resized), expected)


@given(SIZES, SIZES)
def test_taps_weigh_one_together(size: int, resized: int) -> None:
    _, weights = taps(size, resized)
    assert (abs(weights.sum(axis=1) - (1 << 22)) <= weights.shape[1]).all()


@pytest.mark.parametrize("shape", [(300, 400), (401, 259), (224, 224), (30, 37), (1000, 3)])
def test_pixel_values_equal_the_original(shape: tuple[int, int]) -> None:
    image = picture(*shape, contrast=True)
    expected = PerceiverImageProcessorPil()(image, input_data_format="channels_last", return_tensors="np")
    got = preprocess([image])["pixel_values"]
    assert (got.dtype, got.shape, got.flags.c_contiguous) == (np.float32, (1, 3, 224, 224), True)
    np.testing.assert_array_equal(got, expected["pixel_values"])


def test_other_sizes_and_batches_equal_the_original() -> None:
    images = [picture(90, 120), picture(200, 64, seed=1)]
    square = PerceiverImageProcessorPil(size={"height": 56, "width": 56}, crop_size={"height": 64, "width": 64})
    expected = square(images, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(preprocess(images, ImageConfig(56, 56))["pixel_values"], expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"uint8\[height, width, 3\], got uint8\[3, 8, 8\]; convert it"),
        (np.zeros((8, 8, 3), np.float32), r"got float32\[8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"got uint8\[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"got uint8\[0, 8, 3\]"),
        (np.zeros((1, 8, 3), np.uint8), "expected a shorter side of at least 2"),
        ("a path", "got str"),
    ],
)
def test_misfits_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        preprocess([image])


def test_no_images_are_refused() -> None:
    with pytest.raises(FeedError, match="at least one image"):
        preprocess([])


def test_a_crop_beyond_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="crop of more than 0, at most 1"):
        ImageConfig(crop=1.5)


def test_images_of_any_size_are_classified(classifier_session: Session) -> None:
    images = [np.full((h, w, 3), colour, np.uint8) for h, w, colour in ((20, 30, [9, 9, 99]), (40, 17, [99, 9, 9]))]
    predictions = classify(classifier_session, images, k=3)
    assert [row[0].index for row in predictions] == [2, 0]


def test_a_bundle_without_pixels_is_refused(flow_session: Session) -> None:
    with pytest.raises(UsageError, match="expected an input pixel_values"):
        classify(flow_session, [picture(20, 20)])
