"""Fashion-MNIST (arXiv:1708.07747): ten kinds of clothing as 28x28 grey images.

The package ships a balanced sample of it (`sample`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.dataset import Dataset, shipped
from perceiver_deploy.datasets.fashion_mnist.sample import read_sample
from perceiver_runtime.settings import ImageSettings, Processing

NAME = "fashion-mnist"
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in [0, 1]
PROCESSING = Processing(
    image=ImageSettings(channels=1, size=(28, 28), mean=(MEAN,), std=(STD,)), origin="its training data"
)


def normalise(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Bytes (N, 28, 28) to the `pixel_values` (N, 1, 28, 28) that a model takes: zero mean, unit variance."""
    scaled = (images[:, None].astype(np.float32) / np.float32(255.0) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def load() -> Dataset:
    """The shipped sample: 512 training images for calibration, 2,000 test images for evaluation."""
    sample = read_sample()
    return shipped(
        name=NAME,
        labels=LABELS,
        calibration={"pixel_values": normalise(sample.calibration.images)},
        held_out={"pixel_values": normalise(sample.held_out.images)},
        targets=sample.held_out.labels.astype(np.int64),
    )
