"""The shipped checkpoint scores what its papers say, on the sample shipped with it."""

from __future__ import annotations

import json
import re

import pytest
import torch

from perceiver_deploy.checkpoints.native import load_checkpoint, read_config
from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.zoo import ZOO_DIRECTORY
from perceiver_runtime.evaluation.metrics import evaluate_classification
from perceiver_runtime.format.schema import encode
from zoo_training.loop import predict
from zoo_training.recipe import DATASET, FAMILY, MODEL, TRAINING

DIRECTORY = ZOO_DIRECTORY / "fashion-perceiver"


@pytest.fixture(scope="module")
def loaded():
    return load_checkpoint(DIRECTORY)


@pytest.fixture(scope="module")
def readme() -> str:
    return (DIRECTORY / "README.md").read_text()


def test_accuracy_on_the_sample_is_the_recorded_one(loaded, readme):
    data = DATASETS[loaded.dataset]()
    (whole,) = data.scored[0].samples.batches(2000)
    logits = predict(loaded.module, torch.from_numpy(whole.feeds["pixel_values"])).numpy()
    found = evaluate_classification(logits, whole.targets["logits"], data.labels)
    recorded = read_config(DIRECTORY).provenance["accuracy"]["sample_2000"]
    assert found.samples == 2000
    assert found.accuracy == pytest.approx(recorded, abs=1e-6)
    assert found.accuracy >= 0.88
    assert f"{recorded:.4f} on the 2,000" in readme


def test_accuracy_on_all_test_images_is_the_one_in_the_readme(readme):
    accuracy = read_config(DIRECTORY).provenance["accuracy"]["test_10000"]
    assert accuracy >= 0.88
    assert f"{accuracy:.4f} on the 10,000" in readme


def test_it_was_made_by_the_recipe_in_the_code(loaded):
    assert (loaded.family, loaded.config, loaded.dataset) == (FAMILY, MODEL, DATASET)
    provenance = read_config(DIRECTORY).provenance
    assert provenance["training"] == encode(TRAINING)
    steps = TRAINING.total_steps(60_000)
    assert provenance["steps"] == f"{steps} of {steps}"


def test_size_and_parameters_are_those_in_the_readme(loaded, readme):
    parameters = sum(p.numel() for p in loaded.module.parameters())
    assert int(re.search(r"Parameters \| ([\d,]+)", readme)[1].replace(",", "")) == parameters
    assert (DIRECTORY / "model.safetensors").stat().st_size < 2e6


def test_the_processor_block_is_shared(loaded):
    steps = {step.component: step for step in FAMILIES[loaded.family].cut(loaded.module).pipeline.steps}
    assert steps["processor_block"].repeat == MODEL.perceiver.processor.blocks >= 2


def test_config_is_indented_json_that_a_person_can_read():
    text = (DIRECTORY / "config.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
