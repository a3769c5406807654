"""Evaluation of a deployed bundle beside its reference."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny_bundles
import torch
from click.testing import CliRunner

from perceiver_deploy.api import evaluate as evaluation
from perceiver_deploy.api.evaluate import evaluate, evaluate_bundle, evaluate_session
from perceiver_deploy.api.export import export
from perceiver_deploy.checkpoints.native import load_checkpoint, read_config, save_checkpoint
from perceiver_deploy.cli import evaluate as evaluate_command
from perceiver_deploy.datasets import DATASETS, ArraySamples
from perceiver_deploy.families.image_classifier import cut
from perceiver_deploy.sources.source import resolve
from perceiver_deploy.zoo import ZOO_DIRECTORY
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.schema import encode
from perceiver_runtime.tensors import Range

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
    first = next(data.scored[0].samples.batches(100))
    samples = ArraySamples(first.feeds, first.targets)
    return dataclasses.replace(data, scored=(dataclasses.replace(data.scored[0], samples=samples),))


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
        report = evaluate_session(session, few, cut(broken), batch=50)  # type: ignore[arg-type]
    assert report.reference.accuracy == pytest.approx(np.mean(few.scored[0].samples.targets["logits"] == 0))
    assert report.difference["accuracy"] == pytest.approx(report.deployed.accuracy - report.reference.accuracy)
    assert report.difference["accuracy"] > 0.5
    assert report.agreement < 0.3


def test_batches_of_any_size_give_the_same_scores(bundle, few):
    reference = cut(resolve(NAME).module)  # type: ignore[arg-type]
    with open_session(bundle, threads=1) as session:
        found = [evaluate_session(session, few, reference, batch=batch) for batch in (1, 7, 64)]
    reports = [dataclasses.replace(report, conditions=None) for report in found]
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize("sizes", [Range(1, 1, 64), Range(7, 8, 9), Range(64, 64, 64)])
def test_samples_run_in_batches_that_the_bundle_takes(bundle, few, sizes):
    """The last batch is filled up where too few samples are left for the smallest."""
    loaded = load_bundle(bundle)
    profile = dataclasses.replace(loaded.manifest.profiles[0], dimensions={"batch": sizes})
    narrow = dataclasses.replace(loaded, manifest=dataclasses.replace(loaded.manifest, profiles=(profile,)))
    with open_session(narrow, threads=1) as session:
        report = evaluate_session(session, few, cut(resolve(NAME).module), batch=65)  # type: ignore[arg-type]
    assert report.samples == 100
    assert report.agreement == 1.0


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


@pytest.fixture(scope="module")
def two(bundle, tmp_path_factory):
    """The same bundle under two names."""
    copy = tmp_path_factory.mktemp("copy") / "again"
    shutil.copytree(bundle, copy)
    return [bundle, copy]


@pytest.fixture
def evaluated(two, few, monkeypatch):
    monkeypatch.setitem(DATASETS, "fashion-mnist", lambda: few)
    return evaluate(two, threads=1)


def test_each_bundle_is_reported_in_order(evaluated):
    assert [[(r.output, r.precision, r.samples) for r in reports] for reports in evaluated] == [
        [("logits", "fp32", 100)],
        [("logits", "fp32", 100)],
    ]
    first, second = (dataclasses.replace(reports[0], conditions=None) for reports in evaluated)
    assert first == second


def shown(two, monkeypatch, evaluated, *options: str) -> str:
    monkeypatch.setattr(evaluation, "evaluate", lambda bundles, **_: evaluated)
    return CliRunner().invoke(evaluate_command.command, [*map(str, two), "--quiet", *options]).output


def test_side_by_side_as_table_markdown_and_json(two, evaluated, monkeypatch):
    report = evaluated[0][0]
    deployed = f"{report.deployed.f1:.4f} ({report.difference['f1']:+.4f})"
    row = ["logits", "f1", "100", f"{report.reference.f1:.4f}", deployed, deployed]
    lines = shown(two, monkeypatch, evaluated, "--markdown").splitlines()
    assert lines[0] == "| output | metric | samples | reference | fp32 | again |"
    assert f"| {' | '.join(row)} |" in lines
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    table = shown(two, monkeypatch, evaluated)
    assert any(all(cell in line for cell in row) for line in table.splitlines())
    parsed = json.loads(shown(two, monkeypatch, evaluated, "--json"))
    assert [r["deployed"]["f1"] for r in parsed] == [report.deployed.f1] * 2


def test_per_class_scores_are_shown_on_demand(two, evaluated, monkeypatch):
    lines = shown(two, monkeypatch, evaluated, "--markdown", "--per-class").splitlines()
    recall = next(line for line in lines if "recall of Sandal" in line)
    assert f"{evaluated[0][0].reference.per_class[5].recall:.4f}" in recall
    assert sum("f1 of" in line for line in lines) == 10


def test_bundles_of_two_models_are_refused(two):
    tiny_bundles.change(two[1], lambda manifest: manifest["source"].update(weights_sha256="0" * 64))
    with pytest.raises(UsageError, match="one model"):
        evaluate(two)
