"""A small image classifier as a checkpoint, data of a user's own for it, and int8 bundles made with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories.samples import CONFIG, arrays
from factories.weights import randomise
from torch_threads import one_thread as one_thread

import perceiver_deploy as pd
from perceiver_deploy.checkpoints.native import CheckpointRecord, save_checkpoint
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import resolve


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "mine"
    module = randomise(ImageClassifier(CONFIG), 0)
    save_checkpoint(path, CheckpointRecord("patch-classifier", CONFIG, None, {}), module)
    return path


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Model:
    return resolve(checkpoint)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    np.savez(path, **arrays())  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In int8, calibrated on the user's samples; not to be changed."""
    path = tmp_path_factory.mktemp("bundles") / "int8"
    options = pd.QuantizationOptions(cache=None)
    pd.export(checkpoint, path, precision="int8", data=archive, calibration_samples=20, quantization=options)
    return path
