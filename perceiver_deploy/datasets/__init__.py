"""Data sets shipped with the project, by name; each is read on demand.

A new one is a package with a function that returns a `Dataset`, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from perceiver_deploy.datasets import fashion_mnist
from perceiver_deploy.datasets.dataset import ArraySamples, Dataset, Samples, Scored
from perceiver_deploy.datasets.emoji import dataset as emoji_dataset
from perceiver_deploy.datasets.languages import dataset as languages_dataset

DATASETS: dict[str, Callable[[], Dataset]] = {
    fashion_mnist.NAME: fashion_mnist.load,
    languages_dataset.NAME: languages_dataset.load,
    emoji_dataset.NAME: emoji_dataset.load,
}

__all__ = ["DATASETS", "ArraySamples", "Dataset", "Samples", "Scored"]
