"""Evaluation of a deployed bundle beside its reference."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from perceiver_deploy import evaluation
from perceiver_deploy.checkpoints.native import load_checkpoint, read_config, save_checkpoint
from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.evaluation import evaluate, evaluate_bundle
from perceiver_deploy.exporting import export
from perceiver_deploy.families.image_classifier import cut
from perceiver_deploy.source import resolve
from perceiver_deploy.zoo import ZOO_DIRECTORY
from perceiver_runtime import open_session
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.schema import encode

NAME = "fashion-perceiver"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The shipped model, exported in FP32."""
    path = tmp_path_factory.mktemp("bundle") / "fp32"
    export(NAME, path)
    return path


@pytest.fixture(scope="module")
def few():
    """The first 100 held-out images."""
    data = DATASETS["fashion-mnist"]()
    pixels = {"pixel_values": data.held_out["pixel_values"][:100]}
    return dataclasses.replace(data, held_out=pixels, targets=data.targets[:100])


def test_fp32_scores_as_the_reference_does(bundle):
    report = evaluate_bundle(bundle)
    recorded = read_config(ZOO_DIRECTORY / NAME).provenance["accuracy"]["sample_2000"]
    assert (report.dataset, report.samples, report.precision) == ("fashion-mnist", 2000, "fp32")
    assert report.reference.accuracy == pytest.approx(recorded, abs=1e-6)
    assert report.agreement >= 0.999
    assert abs(report.difference["accuracy"]) <= 0.001
    assert encode(report)["deployed"]["per_class"][0]["label"] == "T-shirt/top"


def test_difference_and_agreement_belong_to_the_two_compared(bundle, few):
    with open_session(bundle, threads=1) as session:
        broken = resolve(NAME).module
        with torch.no_grad():
            broken.head.bias[0] += 100.0  # always T-shirt/top
        report = evaluate(session, few, cut(broken), batch=50)
    assert report.reference.accuracy == pytest.approx(np.mean(few.targets == 0))
    assert report.difference["accuracy"] == pytest.approx(report.deployed.accuracy - report.reference.accuracy)
    assert report.difference["accuracy"] > 0.5
    assert report.agreement < 0.3


def test_batches_of_any_size_give_the_same_scores(bundle, few):
    reference = cut(resolve(NAME).module)
    with open_session(bundle, threads=1) as session:
        reports = [evaluate(session, few, reference, batch=batch) for batch in (1, 7, 64)]
    assert reports[0] == reports[1] == reports[2]


def test_a_batch_beyond_the_bundle_is_refused(bundle, few):
    with open_session(bundle, threads=1) as session, pytest.raises(FeedError, match="64"):
        evaluate(session, few, cut(resolve(NAME).module), batch=65)


def test_a_reference_with_other_weights_is_refused(bundle, tmp_path):
    loaded = load_checkpoint(ZOO_DIRECTORY / NAME)
    with torch.no_grad():
        loaded.module.head.bias[0] += 1e-3
    save_checkpoint(tmp_path / "other", read_config(ZOO_DIRECTORY / NAME), loaded.module)
    with pytest.raises(UsageError, match="--reference"):
        evaluate_bundle(bundle, reference=str(tmp_path / "other"))


def test_the_same_weights_under_another_name_are_taken(bundle, tmp_path, monkeypatch, few):
    shutil.copytree(ZOO_DIRECTORY / NAME, tmp_path / "copy")
    monkeypatch.setitem(DATASETS, "fashion-mnist", lambda: few)
    assert evaluate_bundle(bundle, reference=str(tmp_path / "copy")).samples == 100


def test_a_model_without_data_is_refused(bundle, tmp_path):
    record = dataclasses.replace(read_config(ZOO_DIRECTORY / NAME), dataset=None)
    save_checkpoint(tmp_path / "bare", record, load_checkpoint(ZOO_DIRECTORY / NAME).module)
    with pytest.raises(UsageError, match="data set"):
        evaluate_bundle(bundle, reference=str(tmp_path / "bare"))


def test_compared_metrics_exist_in_every_report():
    fields = {f.name for f in dataclasses.fields(evaluation.ClassificationMetrics)}
    assert set(evaluation.COMPARED) <= fields
