"""Train the recipe on the full Fashion-MNIST and write the checkpoint, with what it scored and how it was made."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_deploy.checkpoints.native import CheckpointRecord, save_checkpoint
from perceiver_deploy.datasets.fashion_mnist import LABELS, NAME, PROCESSING, normalise
from perceiver_deploy.datasets.fashion_mnist.sample import LabelledImages, read_sample
from perceiver_runtime.evaluation.metrics import evaluate_classification
from perceiver_runtime.format.schema import encode
from zoo_training.data.fashion_mnist import TEST, TRAIN, read_split
from zoo_training.loop import Progress, TrainingConfig, predict, train
from zoo_training.recipe import FAMILY, MODEL, build


@dataclass(frozen=True)
class Outcome:
    """Held-out accuracy in [0, 1] on all 10,000 test images and on the 2,000 shipped with the package."""

    parameters: int
    test_accuracy: float
    sample_accuracy: float
    seconds: float


def train_fashion(
    data: Path, out: Path, config: TrainingConfig, progress: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Train on the 60,000 images in `data` and write the checkpoint to `out`, an unfinished one after every epoch.

    The last epoch's weights are kept, whatever they score: no choice is made by the test images. Raises
    UnavailableError or DatasetError if the data are not there or damaged.
    """
    images, labels = tensors(read_split(data, TRAIN))
    test, sample = tensors(read_split(data, TEST)), tensors(read_sample().held_out)
    last = Progress(0, config.total_steps(len(images)), 0, 0.0, 0.0)

    def report(module: nn.Module, reached: Progress) -> None:
        nonlocal last
        last = reached
        progress(
            f"epoch {reached.epoch}, step {reached.step}/{reached.steps}: "
            f"loss {reached.loss:.4f}, {reached.seconds:.0f} s"
        )
        save_checkpoint(out, _record(config, reached, {}), module)

    module = train(build, images, labels, config, report)
    accuracy = {"test_10000": accuracy_of(module, *test), "sample_2000": accuracy_of(module, *sample)}
    save_checkpoint(out, _record(config, last, accuracy), module)
    parameters = sum(p.numel() for p in module.parameters())
    return Outcome(parameters, accuracy["test_10000"], accuracy["sample_2000"], last.seconds)


def tensors(data: LabelledImages) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 1, 28, 28) and class numbers (N,)."""
    return torch.from_numpy(normalise(data.images)), torch.from_numpy(data.labels.astype(np.int64))


def accuracy_of(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images (N, C, H, W) that the module gives their label (N,)."""
    return evaluate_classification(predict(module, images).numpy(), labels.numpy(), LABELS).accuracy


def _record(config: TrainingConfig, reached: Progress, accuracy: dict[str, float]) -> CheckpointRecord:
    provenance = {
        "data": "Fashion-MNIST, 60,000 training images (Debian package dataset-fashion-mnist), MIT licence",
        "command": f"python -m zoo_training --out DIR --seed {config.seed}",
        "training": encode(config),
        "steps": f"{reached.step} of {reached.steps}",
        "accuracy": accuracy,
        "tools": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return CheckpointRecord(FAMILY, MODEL, NAME, provenance, PROCESSING)
