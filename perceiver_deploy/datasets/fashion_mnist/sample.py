"""The balanced sample of Fashion-MNIST (arXiv:1708.07747) that the package ships."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.npz")
ARRAYS = ("calibration_images", "calibration_labels", "held_out_images", "held_out_labels")


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 28, 28) of unsigned bytes and their classes (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """`calibration` comes from the training split, `held_out` from the test split; both in random order."""

    calibration: LabelledImages
    held_out: LabelledImages


def read_sample(path: Path = SAMPLE) -> Sample:
    """Read a sample. Raises DatasetError if it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[name] for name in ARRAYS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path}: expected the arrays {', '.join(ARRAYS)}; {error}; install again") from error
    return Sample(LabelledImages(*arrays[:2]), LabelledImages(*arrays[2:]))
