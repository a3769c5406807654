"""The range audit of activations: what inputs drive out of FP16's range is kept in FP32, by name, wherever it is."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from perceiver_exporters import export
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.ir.fused_attention import DOMAIN, OPERATOR
from perceiver_exporters.precision.audit.activations import audit_activations
from perceiver_exporters.precision.audit.finding import AuditFinding
from perceiver_exporters.precision.formats import BF16, FP16, Format
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_runtime import verify
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

IN = TensorSpec("x", "float32", ("batch", 6, 16))


class Block(nn.Module):
    """Linear layers one after the other; `scales` multiply what each gives."""

    def __init__(self, *scales: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in scales)
        for layer, scale in zip(self.layers, scales, strict=True):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.25)
            nn.init.normal_(layer.bias, std=0.1)
            with torch.no_grad():
                layer.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, 16) to (B, 6, 16)."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class Attention(nn.Module):
    """Scores that pass FP16's range, although queries, keys and answers are small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 16)
        with torch.no_grad():
            self.query.weight.mul_(400)
            self.key.weight.mul_(400)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, 16) to (B, 6, 16)."""
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        return torch.softmax(scores / 1e5, -1) @ x


def blueprint_of(module: nn.Module, scale: float = 1.0, calibration: float = 0.0) -> Blueprint:
    cut = Cut(
        (Component("layer", module.eval().requires_grad_(False), (IN,), (TensorSpec("y", "float32", IN.shape),)),),
        Pipeline((IN,), (TensorSpec("y", "float32", IN.shape),), (Step("layer", {"x": "x"}, {"y": "y"}, "encode"),)),
        Profile("default", {"batch": Range(1, 1, 8)}),
    )
    x = np.random.default_rng(0).standard_normal((4, 6, 16), dtype=np.float32)
    louder = ({"x": x * np.float32(calibration)},) if calibration else ()
    return Blueprint(Source("layer", "toy", "", {}, False), cut, ({"x": x * np.float32(scale)},), louder)


def exported(blueprint: Blueprint, path: Path) -> tuple[AuditFinding, ...]:
    """The findings of an FP16 bundle, after it was seen to pass, and to be finite and right in FP16 arithmetic."""
    manifest = export.export_bundle(blueprint, path, "fp16", rules=())
    assert all(math.isfinite(t.rel_l2) and t.rel_l2 < 0.05 for t in manifest.tolerances)
    assert verify(path).passed
    sample = load_golden(load_bundle(path))[0].components["layer"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (device,) = ReferenceEvaluator(onnx.load(path / "onnx/layer.onnx")).run(None, dict(sample.inputs))
    np.testing.assert_allclose(device, sample.outputs["y"], rtol=0.02, atol=0.02 * np.abs(sample.outputs["y"]).max())  # type: ignore[arg-type]
    return load_record(path / PATH)[0].findings


def test_what_fits_has_no_findings(tmp_path: Path) -> None:
    assert exported(blueprint_of(Block(1, 1)), tmp_path / "b") == ()


def test_an_overflow_in_the_middle_is_kept_in_fp32(tmp_path: Path) -> None:
    """The second layer's results pass the range, the third brings them back: neither end of the component shows it."""
    findings = exported(blueprint_of(Block(30, 3e3, 1e-4)), tmp_path / "b")
    assert {f.rule for f in findings} == {"RA008"}
    nodes = {f.node.rpartition("/")[0] for f in findings}
    assert "layers.1" in nodes
    assert "layers.2" in nodes
    assert "layers.0" not in nodes
    assert "FP16's range is 65,504, of which 16,376 is used" in findings[0].why
    assert "RA008 layer: layers.1" in (tmp_path / "b/README.md").read_text()


def test_attention_scores_beyond_the_range_are_kept_in_fp32(tmp_path: Path) -> None:
    findings = exported(blueprint_of(Attention()), tmp_path / "b")
    assert findings
    assert not any(f.node.startswith(("query", "key")) for f in findings)


def test_loud_inputs_are_kept_in_fp32(tmp_path: Path) -> None:
    findings = exported(blueprint_of(Block(1e-5), scale=1e5), tmp_path / "b")
    assert any("x reaches" in f.why for f in findings)


def test_calibration_inputs_count_too(tmp_path: Path) -> None:
    assert exported(blueprint_of(Block(1, 1)), tmp_path / "a") == ()
    assert exported(blueprint_of(Block(1, 1), calibration=1e5), tmp_path / "b") != ()


def test_values_that_fp16_would_lose_are_kept_in_fp32(tmp_path: Path) -> None:
    module = Block(1, 1e-8, 1e4)
    nn.init.zeros_(module.layers[1].bias)  # type: ignore[arg-type]
    findings = exported(blueprint_of(module), tmp_path / "b")
    assert {"RA009"} <= {f.rule for f in findings}


def audited(model: ir.Model, form: Format, **feeds: np.ndarray) -> list[tuple[str, str]]:
    """The audit of one graph, whose reference is the identity of its inputs."""
    specs = tuple(TensorSpec(name, "float32", tuple(map(int, array.shape))) for name, array in feeds.items())
    step = Step("g", {s.name: s.name for s in specs}, {"out": "out"}, "encode")

    class First(nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            """The first input."""
            return given[0]

    component = Component("g", First(), specs, (TensorSpec("out", "float32", specs[0].shape),))
    cut = Cut((component,), Pipeline(specs, component.outputs, (step,)), Profile("default", {}))
    found = audit_activations(cut, {"g": model}, {"g": ()}, form, [feeds])
    return [(finding.rule, finding.node) for finding in found["g"]]


def model_of(*nodes: onnx.NodeProto, **shapes: tuple[int, ...]) -> ir.Model:
    graph = onnx.helper.make_graph(
        list(nodes),
        "g",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
    )
    imports = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, 1)]
    made = onnx.helper.make_model(graph, opset_imports=imports, ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


@pytest.mark.parametrize(("peak", "found"), [(1.0, []), (100.0, [("RA008", "fused")])])
def test_the_scores_inside_a_fused_attention_are_bounded(peak: float, found: list[tuple[str, str]]) -> None:
    fused = onnx.helper.make_node(OPERATOR, ["q", "k", "v"], ["out"], "fused", domain=DOMAIN, num_heads=2, scale=0.5)
    arrays = {name: np.full((1, 4, 16), peak, np.float32) for name in "qk"}
    arrays["v"] = np.ones((1, 4, 16), np.float32)
    model = model_of(fused, **{name: array.shape for name, array in arrays.items()})
    assert audited(model, FP16, **arrays) == found


def test_a_nan_is_no_small_number() -> None:
    """The root of a negative number: a maximum would pass over it."""
    model = model_of(
        onnx.helper.make_node("Sqrt", ["x"], ["root"], "root"),
        onnx.helper.make_node("MatMul", ["root", "x"], ["out"], "product"),
        x=(2, 2),
    )
    x = np.array([[1.0, 2.0], [-3.0, 4.0]], np.float32)
    assert audited(model, FP16, x=x) == [("RA008", "product")]
    assert audited(model, FP16, x=np.abs(x)) == []


def test_bf16_holds_what_fp32_holds() -> None:
    model = model_of(onnx.helper.make_node("MatMul", ["x", "x"], ["out"], "product"), x=(2, 2))
    assert audited(model, BF16, x=np.full((2, 2), 1e15, np.float32)) == []
    assert audited(model, FP16, x=np.full((2, 2), 1e15, np.float32)) == [("RA008", "product")]
    assert audited(model, BF16, x=np.full((2, 2), 1.2e19, np.float32)) == [("RA008", "product")]
