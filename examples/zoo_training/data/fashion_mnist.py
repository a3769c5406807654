"""The full Fashion-MNIST (arXiv:1708.07747), 60,000 training and 10,000 test images, and the sample of it.

`python -m zoo_training.data.fashion_mnist` draws the package's sample again.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.fashion_mnist.sample import ARRAYS, SAMPLE, LabelledImages, Sample
from perceiver_deploy.refusal import RefusingCommand
from perceiver_runtime.errors import DatasetError, UnavailableError
from zoo_training.data.idx import read_idx

DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = "train", "t10k"
SIDE = 28
CALIBRATION_SIZE, HELD_OUT_SIZE = 512, 2000
SEED = 2017


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


def _take(data: LabelledImages, indices: npt.NDArray[np.intp]) -> LabelledImages:
    return LabelledImages(data.images[indices], data.labels[indices])


@click.command(cls=RefusingCommand)
@click.option("--data", type=click.Path(path_type=Path), default=DEBIAN_DIRECTORY, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE, show_default=True)
def main(data: Path, out: Path) -> None:
    """Draw the sample from the IDX files in DATA by its fixed seed and write it to OUT."""
    write_sample(draw_sample(data), out)
    click.echo(f"{out}: {out.stat().st_size:,} bytes", err=True)


if __name__ == "__main__":
    main()
