"""Name what is in an image (by default a cat that comes with scikit-image).

perceiver-export export deepmind/vision-perceiver-learned -o vision
python examples/classify_image.py vision photo.jpg          # needs pillow and, without a photo, scikit-image
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image

from perceiver_runtime import open_session
from perceiver_runtime.processing.image import classify
from perceiver_runtime.processing.resample import Pixels


def load(path: str | None) -> Pixels:
    """An RGB image (H, W, 3)."""
    if path is None:
        from skimage.data import chelsea

        return np.asarray(chelsea())
    return np.asarray(Image.open(path).convert("RGB"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the likeliest classes with their probabilities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("image", nargs="?")
    parser.add_argument("-k", type=int, default=5)
    given = parser.parse_args(arguments)
    with open_session(given.bundle) as session:
        if not session.manifest.source.pretrained:
            print("RANDOM WEIGHTS: this bundle was exported without a checkpoint; the answer means nothing")
        predictions = classify(session, [load(given.image)], k=given.k)[0]
    for prediction in predictions:
        print(f"{prediction.probability:7.2%}  {prediction.label}")


if __name__ == "__main__":
    main()
