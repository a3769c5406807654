"""Classify an image (by default scikit-image's picture of a cat).

python examples/classify_image.py                                  # a small model with random weights
python examples/classify_image.py --checkpoint deepmind/vision-perceiver-conv photo.jpg
python examples/classify_image.py --bundle vision photo.jpg        # a bundle of `perceiver-export export`

Needs pillow and, without a photo, scikit-image.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from bundles import add_arguments, opened
from PIL import Image

from perceiver_runtime.processing.image import classify
from perceiver_runtime.processing.resample import Pixels


def load(path: str | None) -> Pixels:
    """An RGB image (H, W, 3)."""
    if path is None:
        from skimage.data import chelsea

        return np.asarray(chelsea())
    return np.asarray(Image.open(path).convert("RGB"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the most probable classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("image", nargs="?")
    parser.add_argument("-k", type=int, default=5)
    given = parser.parse_args(arguments)
    with opened(given, "vision-perceiver-conv") as session:
        predictions = classify(session, [load(given.image)], k=given.k)[0]
    for prediction in predictions:
        print(f"{prediction.probability:7.2%}  {prediction.label}")


if __name__ == "__main__":
    main()
