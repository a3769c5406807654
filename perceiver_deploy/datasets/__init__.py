"""The data sets shipped with the project, by name; each is read when it is called for.

A new one is a package with a function that returns a `Dataset`, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from perceiver_deploy.datasets import fashion_mnist
from perceiver_deploy.datasets.dataset import Dataset
from perceiver_deploy.datasets.emoji import dataset as emoji
from perceiver_deploy.datasets.languages import dataset as languages

DATASETS: dict[str, Callable[[], Dataset]] = {
    fashion_mnist.NAME: fashion_mnist.load,
    languages.NAME: languages.load,
    emoji.NAME: emoji.load,
}

__all__ = ["DATASETS", "Dataset"]
