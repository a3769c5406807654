"""Clips in and out: an autoencoder that keeps everything gives back the clip, whatever the chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.multimodal import (
    ClipShape,
    clip_shape,
    decode_points,
    fit_video,
    preprocess,
    reconstruct,
    to_pcm,
    to_pixels,
)

SHAPE = ClipShape(frames=3, height=8, width=8, samples=64, audio_patch=16)


def clip(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (3, 8, 8, 3), np.uint8), random.integers(-32768, 32768, 64).astype(np.int16)


def test_the_released_clip_has_the_released_points() -> None:
    assert ClipShape().points == {"image": 802816, "audio": 1920}


def test_a_bundle_says_which_clips_it_takes(autoencoder_session: Session) -> None:
    assert clip_shape(autoencoder_session) == SHAPE


def test_another_model_is_refused(flow_session: Session) -> None:
    with pytest.raises(UsageError, match="expected inputs image"):
        clip_shape(flow_session)


def test_feeds_are_what_the_original_takes() -> None:
    video, audio = clip()
    feeds = preprocess(video, audio, SHAPE)
    assert {name: (a.dtype, a.shape) for name, a in feeds.items()} == {
        "image": (np.dtype("float32"), (1, 3, 3, 8, 8)),
        "audio": (np.dtype("float32"), (1, 64, 1)),
    }
    # The demonstration published with the model: pixels / 255 in FP64, samples / 2**15.
    np.testing.assert_array_equal(feeds["image"][0], np.moveaxis(video / 255.0, -1, 1).astype(np.float32))
    np.testing.assert_array_equal(feeds["audio"][0, :, 0], audio.astype(np.float32) / 2**15)


def test_float_samples_are_taken_as_they_are() -> None:
    video, _ = clip()
    samples = np.linspace(-1, 1, 64, dtype=np.float32)
    np.testing.assert_array_equal(preprocess(video, samples, SHAPE)["audio"][0, :, 0], samples)


@pytest.mark.parametrize("chunk", [1, 5, 64, 1000])
def test_everything_comes_back_whatever_the_chunk(autoencoder_session: Session, chunk: int) -> None:
    video, audio = clip()
    result = reconstruct(autoencoder_session, video, audio, chunk)
    np.testing.assert_array_equal(result.video, video)
    np.testing.assert_array_equal(to_pcm(result.audio), audio)
    assert result.probabilities.argmax() == 2
    assert result.probabilities.sum() == pytest.approx(1.0)


def test_the_clip_is_encoded_once(autoencoder_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("encode", "decode"):
        verb = getattr(Session, name)
        monkeypatch.setattr(Session, name, lambda *a, _v=verb, _n=name, **k: (calls.append(_n), _v(*a, **k))[1])
    reconstruct(autoencoder_session, *clip(), chunk=64)
    assert calls == ["encode", *["decode"] * (3 + 1 + 1)]


def test_a_chunk_of_nothing_is_refused(autoencoder_session: Session) -> None:
    with pytest.raises(UsageError, match="at least 1 point"):
        decode_points(autoencoder_session, {}, "image", 4, chunk=0)


@pytest.mark.parametrize(
    ("video", "audio", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros(64, np.int16), r"expected video: uint8\[3, 8, 8, 3\]"),
        (np.zeros((3, 8, 8, 3), np.float32), np.zeros(64, np.int16), r"got float32\[3, 8, 8, 3\]"),
        (np.zeros((3, 8, 8, 3), np.uint8), np.zeros((64, 2), np.int16), r"audio: int16\[64\], got int16\[64, 2\]"),
        (np.zeros((3, 8, 8, 3), np.uint8), np.zeros(64, np.float64), r"audio: float32\[64\], got float64\[64\]"),
        (np.zeros((3, 8, 8, 3), np.uint8), [0] * 64, "expected a NumPy array"),
    ],
)
def test_misfits_are_refused(video: np.ndarray, audio: np.ndarray, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        preprocess(video, audio, SHAPE)


def test_footage_is_fitted() -> None:
    video = np.zeros((2, 30, 50, 3), np.uint8)
    video[:, :, 10:40] = 200
    assert (fit_video(video, 8, 8) == 200).all()


@given(st.floats(-4, 4, width=32))
def test_outputs_beyond_their_range_are_cut_off(value: float) -> None:
    one = np.full((1,), value, np.float32)
    assert to_pixels(one)[0] == round(min(max(float(one[0]), 0.0), 1.0) * 255) or abs(value * 255 % 1 - 0.5) < 1e-4
    assert abs(int(to_pcm(one)[0]) - min(max(float(one[0]) * 32768, -32768), 32767)) <= 0.5
