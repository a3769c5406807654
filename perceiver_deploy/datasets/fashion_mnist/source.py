"""The full Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images, as Debian packages them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.idx import read_idx
from perceiver_runtime.errors import DatasetError, UnavailableError

DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = "train", "t10k"
SIDE = 28


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 28, 28) of unsigned bytes and their classes (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_split(directory: Path, split: str) -> LabelledImages:
    """Read the `train` or `t10k` split. Raises UnavailableError if it is not installed, DatasetError if damaged."""
    images, labels = (directory / f"{split}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1"))
    if absent := [path.name for path in (images, labels) if not path.is_file()]:
        raise UnavailableError(
            f"{directory}: expected {' and '.join(absent)}; install the Debian package dataset-fashion-mnist "
            f"(apt-get install dataset-fashion-mnist) or name the directory of its files with --data"
        )
    result = LabelledImages(read_idx(images), read_idx(labels))
    if result.images.shape != (len(result.labels), SIDE, SIDE):
        raise DatasetError(
            f"{directory}: expected {len(result.labels)} images of 28x28 for as many labels, got {result.images.shape}"
        )
    return result
