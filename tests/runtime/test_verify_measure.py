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

from perceiver_runtime import BundleError, LatencyReport, Session, UsageError, measure, verify
from perceiver_runtime.cli.report import to_json
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.golden import load_golden, sample_path
from perceiver_runtime.measure.verify import VerifyReport

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


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("components/head/out/logits", "logits of head"),
        ("components/fold/out/scaled", "scaled of fold"),
        ("values/answers", "answers of pipeline"),
        ("values/latents", "latents of pipeline"),
    ],
)
def test_an_output_that_no_sample_holds(copy: Path, key: str, named: str) -> None:
    tensors = load_file(copy / SAMPLE)
    _save(copy, {name: array for name, array in tensors.items() if name != key}, {})
    with pytest.raises(BundleError, match=f"nothing to compare {named} with"):
        verify(copy)
    _save(copy, {**tensors, key: tensors[key][:0]}, {})
    with pytest.raises(BundleError, match=f"nothing to compare {named} with"):
        verify(copy)


def test_samples_of_feeds_alone_prove_nothing(copy: Path) -> None:
    tensors = load_file(copy / SAMPLE)
    _save(copy, {name: array for name, array in tensors.items() if name.startswith("feeds/")}, {})
    with pytest.raises(BundleError, match="nothing to compare latents of encoder with"):
        verify(copy)
    assert not VerifyReport((), 1, "").passed


DERIVED = {
    "rel_l2": 8e-6,
    "noise": 1e-6,
    "centred": 1.6e-5,
    "centred_noise": 2e-6,
    "derivation": {
        "method": "m",
        "inputs_sha256": "0",
        "samples": 1,
        "margin": 8.0,
        "floor": 2.0**-21,
        "centred_floor": 2.0**-21,
    },
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rel_l2": 1.0}, "expected rel_l2 from 0 to below 1, got 1"),
        ({"rel_l2": -1e-3}, "expected rel_l2 from 0 to below 1, got -0.001"),
        ({"centred": 1.5}, "expected centred from 0 to below 1, got 1.5"),
        ({"noise": -1.0}, "expected noise from 0 to below inf, got -1"),
        ({"rel_l2": 9e-6}, "rel_l2: expected 8e-06, as its noise, margin and floor give it, got 9e-06"),
        ({"noise": 2e-6}, "rel_l2: expected 1.6e-05, as its noise"),
        ({"centred": 2e-5}, "centred: expected 1.6e-05, as its noise"),
        ({"centred": None}, "expected centred 1.6e-05, got None"),
        ({"margin": 80.0}, r"expected margin 8 and floor 4\.76837e-07 in fp32, got 80"),
        ({"floor": 0.5}, r"expected margin 8 and floor 4\.76837e-07 in fp32, got 8 and 0\.5"),
        ({"centred_floor": 1e-7}, "expected a centred floor of"),
    ],
)
def test_a_tolerance_that_does_not_follow_from_its_derivation(
    copy: Path, changed: dict[str, float], message: str
) -> None:
    derivation = {**DERIVED["derivation"], **{k: v for k, v in changed.items() if k in DERIVED["derivation"]}}  # type: ignore[dict-item]
    entry = {**DERIVED, **{k: v for k, v in changed.items() if k in DERIVED}, "derivation": derivation}
    tiny_bundles.change(copy, lambda m: m["tolerances"][0].update(entry))
    with pytest.raises(BundleError, match=message):
        verify(copy)


def test_a_precision_that_the_runtime_does_not_know(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: (m.update(precision="fp7"), m["tolerances"][0].update(DERIVED)))
    with pytest.raises(BundleError, match="precision 'fp7'; this runtime knows fp32, fp16"):
        verify(copy)


def test_two_tolerances_for_one_tensor(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: m["tolerances"].append(m["tolerances"][0]))
    with pytest.raises(BundleError, match="more than one tolerance for a tensor"):
        verify(copy)


def test_an_answer_that_follows_no_input_fails(tmp_path: Path, model: tiny_bundles.Model) -> None:
    """The rows' mean for every row: near the answer, which is large, and far beside what it varies by."""
    bundle = tiny_bundles.write(tmp_path / "b", model, tiny_bundles.feeds(batch=4), tolerance=0.9)
    tiny_bundles.change(
        bundle, lambda m: [t.update(centred=0.5) for t in m["tolerances"] if t["component"] == "pipeline"]
    )
    assert verify(bundle).passed
    graph = onnx.load(bundle / "onnx/head.onnx")
    (weight,) = graph.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    onnx.save(graph, bundle / "onnx/head.onnx")
    tiny_bundles.rehash(bundle, "onnx/head.onnx")
    tensors = load_file(bundle / SAMPLE)
    constant = np.full_like(tensors["values/logits"], 100.0)
    tensors["values/logits"] = constant + tensors["values/logits"]
    _save(bundle, tensors, {})

    def add_constant(directory: Path) -> None:
        node = graph.graph.node[0]
        node.output[0] = "product"
        graph.graph.initializer.append(numpy_helper.from_array(constant[:1], "constant"))
        graph.graph.node.append(onnx.helper.make_node("Add", ["product", "constant"], ["logits"]))
        onnx.save(graph, directory / "onnx/head.onnx")
        tiny_bundles.rehash(directory, "onnx/head.onnx")

    add_constant(bundle)
    report = next(r for r in verify(bundle).reports if (r.component, r.tensor) == ("pipeline", "logits"))
    assert report.rel_l2 < 0.1
    assert report.centred is not None
    assert report.centred > 0.9
    assert not report.passed


def test_where_golden_samples_came_from_is_said(copy: Path) -> None:
    assert verify(copy).origin == "of an origin that was not recorded"
    tiny_bundles.change(copy, lambda m: m.update(golden_origin="random values (seed 0)"))
    assert verify(copy).origin == "random values (seed 0)"


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
    report = measure(session, batch=batch, warmup=2, iterations=20)
    total = report.total
    assert len(total.samples) == report.iterations == 20
    assert min(total.samples) <= total.p50 <= total.p90 <= total.p95 <= total.p99 <= max(total.samples)
    assert list(report.components) == ["encoder", "start", "fold", "block", "head", "query"]
    assert all(0 < d.p50 < 1e3 for d in report.components.values())
    assert report.overhead.p50 > 0
    assert report.threads == 1
    assert report.batch == batch
    assert {"python", "numpy", "onnxruntime"} <= set(report.versions)
    assert "cores" in report.machine


def test_a_report_is_read_back_from_its_json(session: Session) -> None:
    report = measure(session, warmup=0, iterations=2)
    assert schema.decode(LatencyReport, strict_json.loads(to_json(report))) == report


def test_measure_refuses_nonsense(session: Session) -> None:
    for wrong in ({"batch": 0}, {"iterations": 0}, {"warmup": -1}):
        with pytest.raises(UsageError, match="expected at least 1, 0 and 1"):
            measure(session, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes 1 to 4, got 5"):
        measure(session, batch=5)


def test_overhead_is_small(session: Session) -> None:
    """Checks, copies and calls around 11 calls with 6 staged pieces: well below a millisecond."""
    assert min(measure(session, warmup=20, iterations=100).overhead.samples) < 0.4
