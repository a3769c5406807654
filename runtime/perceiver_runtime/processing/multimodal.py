"""Video, audio and class of a clip, reconstructed by the multimodal autoencoder (Jaegle et al. 2021, section 4.3).

A clip is encoded once; its complete output (802,816 pixels and 1,920 audio patches at the released size) is decoded
from that a chunk of points at a time, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.session import Feeds, Session
from perceiver_runtime.processing.expect import expect, expect_numbers
from perceiver_runtime.processing.labels import Floats, softmax
from perceiver_runtime.processing.pixels import center_crop
from perceiver_runtime.processing.resample import resize
from perceiver_runtime.tensors import Dimension, TensorSpec, is_whole

Video = npt.NDArray[np.uint8]
Audio = npt.NDArray[np.int16] | npt.NDArray[np.float32]

CHUNK = 6272
"""Points decoded at a time: 1 / 128 of the released video, as in the demonstration published with the model."""

POINTS = {"image": "image_index", "audio": "audio_index"}
"""Output by output the input that says which points are decoded: row-major indices (points,), int64."""

LEVELS = (np.arange(256) / 255.0).astype(np.float32)
"""What each of the 256 levels of a pixel becomes: 0 to 1."""

PCM_SCALE = 32768.0


@dataclass(frozen=True)
class ClipShape:
    """Frames, height and width of a clip's video, its audio samples and how many of them make a patch."""

    frames: int = 16
    height: int = 224
    width: int = 224
    samples: int = 30720
    audio_patch: int = 16

    @property
    def points(self) -> dict[str, int]:
        """Number of points of each complete output."""
        audio = self.samples // self.audio_patch
        return {"image": self.frames * self.height * self.width, "audio": audio}


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction of a clip: video (T, H, W, 3), waveform (S,) in [-1, 1], class probabilities (classes,)."""

    video: Video
    audio: Floats
    probabilities: Floats


def clip_shape(session: Session) -> ClipShape:
    """Size of the clips that a bundle takes. Raises UsageError if it is no multimodal autoencoder."""
    shapes = {spec.name: spec.shape for spec in session.inputs}
    patches = {spec.name: spec.shape for spec in session.outputs}.get("audio", ())
    expected = {"image": 5, "audio": 3}
    if any(len(shapes.get(name, ())) != rank for name, rank in expected.items()) or len(patches) != 3:
        got = ", ".join(map(str, session.inputs))
        raise UsageError(f"bundle: expected inputs image [batch, T, 3, H, W] and audio [batch, S, 1], got {got}")
    _, frames, _, height, width = shapes["image"]
    return ClipShape(*map(_fixed, (frames, height, width, shapes["audio"][1], patches[2])))


def preprocess(video: Video, audio: Audio, shape: ClipShape | None = None) -> dict[str, Floats]:
    """Preprocess a clip.

    Args:
        video: RGB frames (T, H, W, 3), uint8; see `fit_video`.
        audio: Mono samples (S,), int16, or float32 in [-1, 1].
        shape: Expected size; None takes that of the released model.

    Returns:
        `image` (1, T, 3, H, W) in [0, 1] and `audio` (1, S, 1) in [-1, 1]. The class is no input; the model predicts
        it.

    Raises:
        FeedError: The video or audio has another shape or type.
    """
    shape = shape or ClipShape()
    remedy = "see `fit_video`, and take as many frames as the model does"
    expect(TensorSpec("video", "uint8", (shape.frames, shape.height, shape.width, 3)), video, remedy)
    pcm = isinstance(audio, np.ndarray) and audio.dtype == np.int16
    spec = TensorSpec("audio", "int16" if pcm else "float32", (shape.samples,))
    expect(spec, audio, "take one channel and as many samples as the model does, int16 or float32")
    image, waveform = clip_values(video, audio)
    return {"image": image[None], "audio": waveform[None]}


def clip_values(video: Video, audio: Audio) -> tuple[Floats, Floats]:
    """One clip to pixels (T, 3, H, W) in [0, 1] and samples (S, 1) in [-1, 1]. Raises FeedError."""
    expect(TensorSpec("video", "uint8", ("frames", "height", "width", 3)), video, "convert it to 8-bit RGB frames")
    pcm = isinstance(audio, np.ndarray) and audio.dtype == np.int16
    expect(TensorSpec("audio", "int16" if pcm else "float32", ("samples",)), audio, "take one channel")
    samples = audio.astype(np.float32) / np.float32(PCM_SCALE) if pcm else audio.astype(np.float32)
    return LEVELS[video.transpose(0, 3, 1, 2)], samples[:, None]


def fit_video(video: Video, height: int = 224, width: int = 224) -> Video:
    """The centre square of every frame (T, H, W, 3), resampled to (T, height, width, 3)."""
    expect(TensorSpec("video", "uint8", ("frames", "height", "width", 3)), video, "convert it to 8-bit RGB frames")
    return np.stack([resize(center_crop(frame, 1.0), height, width) for frame in video])


def reconstruct(session: Session, video: Video, audio: Audio, chunk: int = CHUNK) -> Reconstruction:
    """Encode a clip once and decode everything from it.

    Args:
        session: A session of a multimodal autoencoder.
        video: RGB frames (T, H, W, 3), uint8, of the bundle's size.
        audio: Mono samples (S,), int16, or float32 in [-1, 1].
        chunk: Number of points decoded at a time.

    Returns:
        Video, audio and class probabilities.

    Raises:
        FeedError: The video or audio has another shape or type.
        UsageError: The bundle is no multimodal autoencoder, or the chunk is out of range.
    """
    shape = clip_shape(session)
    encoded = session.encode(preprocess(video, audio, shape))
    decoded = {name: decode_points(session, encoded, name, points, chunk) for name, points in shape.points.items()}
    label = session.decode(encoded, outputs=["label"])["label"]
    return Reconstruction(
        video=to_pixels(decoded["image"][0]).reshape(shape.frames, shape.height, shape.width, 3),
        audio=decoded["audio"][0].reshape(-1),
        probabilities=softmax(label[0]),
    )


def decode_points(session: Session, encoded: Feeds, output: str, points: int, chunk: int = CHUNK) -> Floats:
    """The first `points` points of one output (B, points, width) from encoded values, `chunk` at a time."""
    if not is_whole(chunk) or not is_whole(points) or chunk < 1 or points < 1:
        raise UsageError(f"{output}: expected at least 1 point in chunks of at least 1, got {points} in {chunk}")
    indices = (np.arange(start, min(start + chunk, points), dtype=np.int64) for start in range(0, points, chunk))
    pieces = [session.decode(encoded, {POINTS[output]: index}, [output])[output] for index in indices]
    return np.concatenate(pieces, axis=1)


def to_pixels(image: Floats) -> Video:
    """Pixels in [0, 1], clipped, to the nearest of 256 levels."""
    expect_numbers("image", image)
    pixels: Video = np.rint(np.clip(image, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
    return pixels


def to_pcm(audio: Floats) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1], clipped, to 16 bits."""
    expect_numbers("audio", audio)
    samples: npt.NDArray[np.int16] = np.clip(np.rint(audio * np.float32(PCM_SCALE)), -32768, 32767).astype(np.int16)
    return samples


def _fixed(size: Dimension) -> int:
    if not isinstance(size, int):
        raise UsageError(f"bundle: expected clips of one fixed size, got the dimension {size}")
    return size
