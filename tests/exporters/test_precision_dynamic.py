"""Dynamic INT8: integers without calibration data, proven, emulated, and refused where it would run in FP32."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from perceiver_deploy.api.verify import verify as verify_bundle
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.export import Tracer, export_bundle
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS, Request
from perceiver_exporters.precision.dynamic_integers import make_plan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.options import Budget, QuantizationOptions, Run
from perceiver_exporters.precision.proof.kernels import kernel_shares
from perceiver_exporters.precision.proof.operands import prove
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.preflight import check
from perceiver_exporters.samples import make_samples
from perceiver_runtime import open_session, verify
from perceiver_runtime.backends.integer_products import avoid_saturation
from perceiver_runtime.errors import CheckError, UnavailableError, UsageError
from perceiver_runtime.manifest import Source
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import Bundle

import onnxruntime as ort

DYNAMIC = "int8-dynamic"


def rewrite(graph: ir.Model) -> ir.Model:
    request = Request(str(graph.graph.name), SCHEMES["cpu"], lambda: iter(()), plan=make_plan(graph))
    return PRECISIONS[DYNAMIC].rewrite(graph, request)


def test_it_needs_no_calibration_data(blueprint: Blueprint, tracer: Tracer, tmp_path: Path) -> None:
    without = dataclasses.replace(blueprint, calibration=())
    manifest = export_bundle(without, tmp_path / "b", DYNAMIC, tracer=tracer)
    assert manifest.precision == DYNAMIC
    verification = verify_bundle(tmp_path / "b")
    assert verification.passed
    assert all(t.noise > 2e-3 for t in manifest.tolerances)
    with pytest.raises(UsageError, match="no calibration data; export fp32, fp16 or int8-dynamic"):
        export_bundle(without, tmp_path / "c", "int8", tracer=tracer)


def test_products_run_in_integers_over_ranges_of_run_time(bundle: Bundle) -> None:
    path, _ = bundle(DYNAMIC)
    for entry in load_record(path / PATH):
        assert entry.kernels == {DYNAMIC: 1.0}
        assert entry.weighted == 1.0 or entry.kept
        assert entry.calibration == ""


def test_convolutions_stay_in_fp32_and_are_declared(
    bundle: Bundle, graphs: dict[str, ir.Model], progress: list[str]
) -> None:
    convolutions = {name: [n for n in g.graph if n.op_type == "Conv"] for name, g in graphs.items()}
    path, manifest = bundle(DYNAMIC)
    report = {entry.component: entry for entry in load_record(path / PATH)}
    assert {name: len(found) for name, found in convolutions.items()} == {n: len(e.kept) for n, e in report.items()}
    assert report["encoder"].kept == ("tokens.project",)
    assert report["encoder"].weighted < 1.0
    assert "encoder: convolution tokens.project kept in FP32" in "\n".join(progress)
    (card_row,) = [line for line in (path / "README.md").read_text().splitlines() if "`tokens.project`" in line]
    assert card_row.startswith("| `encoder` |")
    assert "over all rows of a batch together" in (path / "README.md").read_text()
    undeclared = dataclasses.replace(make_plan(graphs["encoder"]), kept=frozenset())
    model = PRECISIONS[DYNAMIC].rewrite(
        graphs["encoder"], Request("encoder", SCHEMES["cpu"], lambda: iter(()), plan=undeclared)
    )
    entry = manifest.component("encoder")
    with pytest.raises(CheckError, match="expected 99% of the weighted matrix FLOPs in int8-dynamic"):
        prove(SizedGraph(model, entry.inputs, manifest.profiles[0]), PRECISIONS[DYNAMIC])


def test_a_tensor_that_feeds_several_products_is_quantised_once(graphs: dict[str, ir.Model]) -> None:
    graph = rewrite(graphs["processor_block"]).graph
    kinds = Counter(node.op_type for node in graph)
    assert kinds["DynamicQuantizeLinear"] == 2 * 4  # per layer: input of Q, K and V; of the output; of each MLP layer
    for node in graph:
        if node.op_type == "DynamicQuantizeLinear":
            assert node.outputs[0].dtype in (None, ir.DataType.UINT8)
            assert [reader.op_type for reader in node.outputs[0].consumers()] == ["DequantizeLinear"]


def test_activations_are_unsigned_and_weights_signed(bundle: Bundle) -> None:
    path, manifest = bundle(DYNAMIC)
    weights = 0
    for component in manifest.components:
        for node in ir.load(path / component.onnx).graph:
            assert node.op_type not in ("QuantizeLinear", "MatMulInteger", "ConvInteger")
            value = node.inputs[0] if node.op_type == "DequantizeLinear" else None
            if value is not None and value.is_initializer():
                assert value.dtype == ir.DataType.INT8
                weights += 1
    assert weights >= 20


def test_a_bias_behind_a_gemm_computes_the_same(graphs: dict[str, ir.Model]) -> None:
    """ONNX Runtime runs a Gemm in integers only if its bias is added behind it."""
    graph = graphs["decoder"]
    gemms = [node.name for node in graph.graph if node.op_type == "Gemm"]
    assert gemms
    made = rewrite(graph)
    assert [node.name for node in made.graph if node.op_type == "Gemm"] == gemms
    assert all(len(node.inputs) == 2 for node in made.graph if node.op_type == "Gemm")
    latents = np.random.default_rng(0).standard_normal((2, 16, 64), dtype=np.float32)
    options = ort.SessionOptions()
    avoid_saturation(options)
    before, after = (
        ort.InferenceSession(ir.to_proto(g).SerializeToString(), options).run(None, {"latents": latents})[0]
        for g in (graph, made)
    )
    assert 1e-4 < relative_l2(before, after) < 5e-2


def test_a_computed_bias_that_is_scaled_is_refused(graphs: dict[str, ir.Model]) -> None:
    graph = graphs["decoder"].graph
    gemm = next(node for node in graph if node.op_type == "Gemm")
    gemm.attributes["beta"] = ir.AttrFloat32("beta", 0.5)
    computed = ir.node("Identity", [gemm.inputs[2]], name="computed")
    graph.insert_before(gemm, computed)
    gemm.replace_input_with(2, computed.outputs[0])
    with pytest.raises(CheckError, match=r"expected a product with a matrix, .* and beta 0.5; export int8"):
        rewrite(graphs["decoder"])


def test_a_fixed_range_is_not_a_dynamic_one(bundle: Bundle, blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    path, manifest = bundle("int8")
    entry = manifest.component("processor_block")
    static, dynamic = ir.load(path / entry.onnx), rewrite(graphs["processor_block"])
    for model, label, other in ((static, "int8", DYNAMIC), (dynamic, DYNAMIC, "int8")):
        sized = SizedGraph(model, entry.inputs, manifest.profiles[0])
        assert prove(sized, PRECISIONS[label]).weighted == 1.0
        with pytest.raises(CheckError, match="is not what its label says"):
            prove(sized, PRECISIONS[other])
        assert kernel_shares(sized) == {label: 1.0}


def test_samples_of_a_batch_share_a_range(bundle: Bundle, blueprint: Blueprint) -> None:
    """The documented price: a loud neighbour takes levels from a quiet sample; alone it is as near as ever."""
    path, _ = bundle(DYNAMIC)
    feeds = blueprint.golden[0]
    with open_session(path) as session:
        alone = session.run({name: array[:1] for name, array in feeds.items()})["logits"]
        loud = {name: np.concatenate([array[:1], 20 * array[1:2]]) for name, array in feeds.items()}
        beside = session.run(loud)["logits"][:1]
    exact = make_samples(blueprint.cut, [feeds])[0].values["logits"][:1]
    assert relative_l2(exact, alone) < 0.05
    assert relative_l2(alone, beside) > 1e-4


def test_bisect_raises_no_alarm(bundle: Bundle, blueprint: Blueprint, tracer: Tracer) -> None:
    path, _ = bundle(DYNAMIC)
    found = bisect(path, dataclasses.replace(blueprint, calibration=()), tracer=tracer)
    assert found.diagnoses == ()
    assert found.compared > 0


def test_a_budget_keeps_the_fewest_layers(bundle: Bundle, blueprint: Blueprint) -> None:
    golden = make_samples(blueprint.cut, blueprint.golden)

    def score(run: Run) -> Mapping[str, float]:
        near = [np.abs(run(g.feeds, ("logits",))["logits"] - g.values["logits"]) < 0.02 for g in golden]
        return {"logits": float(np.concatenate([n.ravel() for n in near]).mean())}

    path, _ = bundle(DYNAMIC, quantization=QuantizationOptions(budget=Budget(0.0, score)))
    kept = {entry.component: entry.kept for entry in load_record(path / PATH)}
    assert "tokens.project" in kept["encoder"]
    assert sum(map(len, kept.values())) > 1
    assert verify(path).passed
    assert verify_bundle(path).breaches == ()


class Twice(nn.Module):
    """One layer under two names; the graph has it under the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.second(x)
        return product


@pytest.mark.parametrize("precision", ["int8", DYNAMIC])
def test_the_noise_of_a_weight_with_two_names_is_not_overlooked(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = (TensorSpec(name, "float32", ("batch", 4, 32)) for name in "xy")
    component = Component("layer", Twice().eval().requires_grad_(False), (x,), (y,))
    pipeline = Pipeline((x,), (y,), (Step("layer", {"x": "x"}, {"y": "y"}, "encode"),))
    cut = Cut((component,), pipeline, Profile("default", {"batch": Range(1, 1, 4)}))
    feeds = ({"x": np.random.default_rng(0).standard_normal((2, 4, 32), dtype=np.float32)},)
    twice = Blueprint(Source("twice", "toy", "0" * 64, {}, pretrained=False), cut, feeds, feeds)
    manifest = export_bundle(twice, tmp_path / "b", precision)
    assert all(t.noise > 2e-3 for t in manifest.tolerances)
    assert verify(tmp_path / "b").passed


@pytest.mark.parametrize("target", ["cuda", "jetson-orin", "jetson-thor", "rtx", "hopper"])
def test_other_targets_refuse_it(bundle: Bundle, target: str) -> None:
    with pytest.raises(UsageError, match=f"{target} .*int8-dynamic.*offers fp32"):
        bundle(DYNAMIC, target=target)


@pytest.mark.parametrize(
    "options",
    [
        QuantizationOptions("entropy"),
        QuantizationOptions(overrides={"decoder": "entropy"}),
        QuantizationOptions(smooth=False),
    ],
)
def test_calibration_is_refused(bundle: Bundle, options: QuantizationOptions) -> None:
    with pytest.raises(UsageError, match=r"int8-dynamic .*calibrat"):
        bundle(DYNAMIC, quantization=options)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime-exact", "onnxruntime-quick"])
def test_backends_compute_in_integers_or_refuse(bundle: Bundle, backend: str) -> None:
    path, _ = bundle(DYNAMIC)
    if backend == "openvino":  # it would run every product in FP32
        pytest.importorskip("openvino")
        with pytest.raises(UnavailableError, match=r"openvino: .*int8-dynamic.*onnxruntime"):
            open_session(path, backend)
    else:
        assert verify(path, backend).passed


def test_preflight_blocks_it(bundle: Bundle) -> None:
    path, _ = bundle(DYNAMIC)
    report = check(path, "hopper")
    assert report.verdict == "blocked"
    assert any("int8-dynamic" in finding.message for finding in report.findings)
