"""Verification finds the component that is wrong; measurement adds up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bundles
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from perceiver_runtime import BundleError, Session, UsageError, measure, verify
from perceiver_runtime.golden import load_golden, sample_path

SAMPLE = "golden/sample-0.safetensors"


def _scale(directory: Path, component: str, weight: str) -> Path:
    """Change one weight by a thousandth, and let the hash agree."""
    path = f"onnx/{component}.onnx"
    graph = onnx.load(directory / path)
    for tensor in graph.graph.initializer:
        if tensor.name == weight:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), weight))
    onnx.save(graph, directory / path)
    tiny_bundles.rehash(directory, path)
    return directory


def test_a_right_bundle_passes(session: Session) -> None:
    report = verify(session)
    assert report.passed
    assert report.samples == 1
    modes = {(r.component, r.tensor): r.mode for r in report.reports}
    assert modes.pop(("pipeline", "answers")) == "chained"
    assert modes.pop(("pipeline", "latents")) == "chained"
    assert modes[("fold", "total_out")] == "teacher-forced"
    assert len(report.reports) == 7 + 5


def test_blame_falls_on_one_component(copy: Path) -> None:
    report = verify(_scale(copy, "block", "v"))
    assert not report.passed
    failed = {(r.component, r.tensor) for r in report.reports if not r.passed}
    assert failed == {
        ("block", "latents_out"),
        ("pipeline", "latents"),
        ("pipeline", "logits"),
        ("pipeline", "answers"),
    }


def test_the_worst_sample_counts(copy: Path, model: tiny_bundles.Model) -> None:
    """The second of three samples holds a wrong reference."""
    tensors = load_file(copy / SAMPLE)
    wrong = {**tensors, "values/logits": tensors["values/logits"] * np.float32(1.01)}
    for index, content in ((1, wrong), (2, tensors)):
        save_file(content, copy / sample_path(index))
        tiny_bundles.rehash(copy, sample_path(index))
        tiny_bundles.change(copy, lambda m, i=index: m["golden"].append(sample_path(i)))
    report = verify(copy)
    assert report.samples == 3
    assert [(r.component, r.tensor) for r in report.reports if not r.passed] == [("pipeline", "logits")]
    assert len(report.reports) == 7 + 5


def test_missing_tolerance(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: m["tolerances"].pop(0))
    with pytest.raises(BundleError, match="no tolerance for latents of encoder"):
        verify(copy)


def test_no_golden_samples(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: m.update(golden=[]))
    with pytest.raises(BundleError, match="no golden samples"):
        verify(copy)


def test_golden_of_another_bundle(copy: Path) -> None:
    tensors = load_file(copy / SAMPLE)
    save_file({**tensors, "values/zzz": tensors["values/logits"]}, copy / SAMPLE)
    tiny_bundles.rehash(copy, SAMPLE)
    with pytest.raises(BundleError, match="pipeline gives no zzz"):
        verify(copy)


def test_golden_round_trip(session: Session, model: tiny_bundles.Model) -> None:
    sample = tiny_bundles.golden_sample(model, tiny_bundles.feeds())
    (read,) = load_golden(session.bundle)
    assert set(read.tensors()) == set(sample.tensors())
    for key, array in sample.tensors().items():
        np.testing.assert_array_equal(read.tensors()[key], array)


def test_a_golden_tensor_may_have_several_keys(copy: Path) -> None:
    tensors = load_file(copy / SAMPLE)
    del tensors["values/logits"]
    tensors["components/head/in/latents"] = tensors["values/latents"]
    tensors["components/head/out/logits"] = tensors["values/latents"][..., :2] * 0
    _save(copy, tensors, {"values/logits": "components/head/out/logits"})
    failed = {(r.component, r.tensor) for r in verify(copy).reports if not r.passed}
    assert failed == {("head", "logits"), ("pipeline", "logits")}


@pytest.mark.parametrize("same", [{"values/logits": "values/none"}, {"values/logits": ["values/latents"]}, [], "text"])
def test_keys_of_no_golden_tensor(copy: Path, same: object) -> None:
    _save(copy, load_file(copy / SAMPLE), same)
    with pytest.raises(BundleError, match="expected keys of tensors in the file"):
        verify(copy)


def _save(bundle: Path, tensors: dict[str, np.ndarray], same: object) -> None:
    save_file(tensors, bundle / SAMPLE, metadata={"same": json.dumps(same)})
    tiny_bundles.rehash(bundle, SAMPLE)


@pytest.mark.parametrize("batch", [1, 3])
def test_measure(session: Session, batch: int) -> None:
    report = measure(session, batch=batch, warmup=2, runs=20)
    total = report.total
    assert len(total.samples) == report.runs == 20
    assert min(total.samples) <= total.p50 <= total.p90 <= total.p95 <= total.p99 <= max(total.samples)
    assert list(report.components) == ["encoder", "start", "fold", "block", "head", "query"]
    assert all(0 < d.p50 < 1e3 for d in report.components.values())
    assert report.overhead.p50 > 0
    assert report.threads == 1
    assert report.batch == batch
    assert {"python", "numpy", "onnxruntime"} <= set(report.versions)
    assert "cores" in report.machine


def test_measure_refuses_nonsense(session: Session) -> None:
    for wrong in ({"batch": 0}, {"runs": 0}, {"warmup": -1}):
        with pytest.raises(UsageError, match="expected at least 1, 0 and 1"):
            measure(session, **wrong)
    with pytest.raises(UsageError, match="batch 5; this bundle takes 1 to 4"):
        measure(session, batch=5)


def test_overhead_is_small(session: Session) -> None:
    """Checks, copies and calls around 11 applications with 6 staged pieces: well below a millisecond."""
    assert min(measure(session, warmup=20, runs=100).overhead.samples) < 0.4
