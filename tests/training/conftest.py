"""A small model, and the committed sample as tensors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories.weights import randomise
from torch_threads import one_thread as one_thread

from perceiver_deploy.datasets.fashion_mnist import normalise
from perceiver_deploy.datasets.fashion_mnist.sample import read_sample
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.patches import PatchClassifierConfig
from zoo_training.recipe import MODEL


@pytest.fixture(scope="session")
def sample_tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """The 512 calibration images (512, 1, 28, 28) and their labels."""
    data = read_sample().calibration
    return torch.from_numpy(normalise(data.images)), torch.from_numpy(data.labels.astype(np.int64))


@pytest.fixture(scope="session")
def small_config() -> PatchClassifierConfig:
    """The recipe's model with two latents of the same width: quick, and of every part."""
    return dataclasses.replace(MODEL, perceiver=dataclasses.replace(MODEL.perceiver, latents=2))


@pytest.fixture
def randomised(small_config: PatchClassifierConfig) -> ImageClassifier:
    """A model whose every tensor is random, biases and LayerNorm weights too."""
    return randomise(ImageClassifier(small_config), 7)
