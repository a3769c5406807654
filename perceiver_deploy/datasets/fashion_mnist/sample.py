"""The sample of Fashion-MNIST that is shipped with the package: how it is drawn, written and read."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.fashion_mnist.source import TEST, TRAIN, LabelledImages, read_split
from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.npz")
CALIBRATION_SIZE, HELD_OUT_SIZE = 512, 2000
SEED = 2017
ARRAYS = ("calibration_images", "calibration_labels", "held_out_images", "held_out_labels")


@dataclass(frozen=True)
class Sample:
    """`calibration` comes from the training split, `held_out` from the test split; both in random order."""

    calibration: LabelledImages
    held_out: LabelledImages


def draw_sample(directory: Path) -> Sample:
    """Draw the shipped sample from the full set by a fixed seed. Raises what `read_split` raises."""
    random = np.random.default_rng(SEED)
    train, test = read_split(directory, TRAIN), read_split(directory, TEST)
    return Sample(
        calibration=_take(train, balanced(train.labels, CALIBRATION_SIZE, random)),
        held_out=_take(test, balanced(test.labels, HELD_OUT_SIZE, random)),
    )


def balanced(labels: npt.NDArray[np.uint8], size: int, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices of `size` samples in random order with every class as often as any other; at most one more or less."""
    ranked = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    rounds = -(-size // len(ranked))
    chosen = np.stack([indices[:rounds] for indices in ranked], axis=1).ravel()[:size]
    return random.permutation(chosen)


def write_sample(sample: Sample, path: Path) -> None:
    """Write a sample as a compressed .npz; the same sample gives the same bytes."""
    parts = (sample.calibration.images, sample.calibration.labels, sample.held_out.images, sample.held_out.labels)
    np.savez_compressed(path, **dict(zip(ARRAYS, parts, strict=True)))  # type: ignore[arg-type]


def read_sample(path: Path = SAMPLE) -> Sample:
    """Read a sample. Raises DatasetError if it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[name] for name in ARRAYS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path}: expected the arrays {', '.join(ARRAYS)}; {error}; install again") from error
    return Sample(LabelledImages(*arrays[:2]), LabelledImages(*arrays[2:]))


def _take(data: LabelledImages, indices: npt.NDArray[np.intp]) -> LabelledImages:
    return LabelledImages(data.images[indices], data.labels[indices])
