"""Reconstruct a clip with sound by the multimodal autoencoder.

python examples/reconstruct_video.py -o out                        # a small model with random weights
python examples/reconstruct_video.py --checkpoint deepmind/multimodal-perceiver -o out
python examples/reconstruct_video.py --bundle multimodal -o out    # a bundle of `perceiver-export export`

The clip is synthetic: a bright disc crosses the picture while a tone rises. Needs pillow.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundles import add_arguments, opened
from PIL import Image

from perceiver_runtime.processing.labels import top_k
from perceiver_runtime.processing.multimodal import Audio, ClipShape, Video, clip_shape, reconstruct, to_pcm

SAMPLE_RATE = 48000


def make_clip(shape: ClipShape) -> tuple[Video, Audio]:
    """Frames (T, H, W, 3) and 16-bit samples (S,)."""
    rows, columns = np.mgrid[: shape.height, : shape.width] / max(shape.height, shape.width)
    centers = np.linspace(0.2, 0.8, shape.frames)[:, None, None]
    disc = np.hypot(rows[None] - 0.5, columns[None] - centers) < 0.15
    background = np.stack([rows, columns, 0.5 + 0 * rows], axis=-1)[None] * 120
    video = np.where(disc[..., None], 240, background).astype(np.uint8)
    time = np.arange(shape.samples) / SAMPLE_RATE
    return video, to_pcm((0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time)).astype(np.float32))


def save(directory: Path, name: str, video: Video, samples: Audio) -> None:
    """Write an animated GIF and a WAV file."""
    directory.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(frame) for frame in video)
    first.save(directory / f"{name}.gif", save_all=True, append_images=others, duration=40, loop=0)
    with wave.open(str(directory / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the clip and its reconstruction; print how near they are, and the likeliest classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("reconstruction"))
    given = parser.parse_args(arguments)
    with opened(given, "multimodal-perceiver") as session:
        video, audio = make_clip(clip_shape(session))
        result = reconstruct(session, video, audio)
        labels = session.manifest.labels
    save(given.out, "original", video, audio)
    save(given.out, "reconstruction", result.video, to_pcm(result.audio))
    error = np.mean((result.video / 255.0 - video / 255.0) ** 2)
    print(f"{given.out}: video PSNR {-10 * np.log10(max(error, 1e-10)):.1f} dB")  # type: ignore[call-overload]
    logits = np.log(np.maximum(result.probabilities, np.finfo(np.float32).tiny))
    for prediction in top_k(logits[None], labels, k=3)[0]:
        print(f"{prediction.probability:7.2%}  {prediction.label}")


if __name__ == "__main__":
    main()
