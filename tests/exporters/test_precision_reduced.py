"""Reduced range: weights of 7 bits, whose products no processor's sums saturate; recorded, claimed, and emulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from perceiver_deploy.api.verify import verify as verify_bundle
from perceiver_exporters.bundle.sealing import seal
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.export import Tracer, export_bundle
from perceiver_exporters.precision.integers.rounding import round_weight
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_runtime import load_bundle, verify
from perceiver_runtime.backends.integer_products import avoid_saturation, products_saturate
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import MANIFEST_NAME, Source
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import Bundle

import onnxruntime as ort

DYNAMIC = "int8-dynamic"
PRECISIONS = ("int8", DYNAMIC)
SIGNED, UNSIGNED = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
REDUCED = QuantizationOptions(reduce_range=True)
ROOM = 0.02
"""Of a layer's error at 7 bits; sums that saturate lose tens of per cent."""


def weights(path: Path) -> Iterator[np.ndarray]:
    """The integers of every quantised weight of a bundle, per channel along the last axis."""
    for component in load_bundle(path).manifest.components:
        for node in ir.load(path / component.onnx).graph:
            value = node.inputs[0] if node.op_type == "DequantizeLinear" else None
            if value is not None and value.const_value is not None and value.dtype == ir.DataType.INT8:
                axis = node.attributes.get_int("axis", 1)
                yield np.moveaxis(value.const_value.numpy().astype(np.int32), axis, -1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_have_seven_bits_and_no_fewer(bundle: Bundle, precision: str) -> None:
    path, _ = bundle(precision, quantization=REDUCED)
    found = list(weights(path))
    assert len(found) >= 20
    for integers in found:
        peaks = np.abs(integers).max(axis=tuple(range(integers.ndim - 1)))
        assert peaks.max() == 64
        assert (peaks[peaks > 0] == 64).mean() > 0.9  # each channel uses its range; 6 bits end at 32
    assert verify(path).passed
    report = load_record(path / PATH)
    assert all(entry.reduced_range and entry.kernels == {precision: 1.0} for entry in report)
    assert "7-bit weights" in (path / "README.md").read_text()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_is_off_unless_asked_for(bundle: Bundle, precision: str) -> None:
    path, _ = bundle(precision)
    assert max(np.abs(integers).max() for integers in weights(path)) == 127
    assert not any(entry.reduced_range for entry in load_record(path / PATH))


def test_biases_follow_the_weights_scales(bundle: Bundle) -> None:
    """A bias of INT32 has the scale of the products that it is added to."""
    path, manifest = bundle("int8", quantization=REDUCED)
    graph = ir.load(path / manifest.component("decoder").onnx).graph
    gemm = next(node for node in graph if node.op_type == "Gemm")
    x, weight, bias = ([v.const_value for v in i.producer().inputs[1:]] for i in gemm.inputs)
    x_scale, weight_scale, bias_scale = (parts[0].numpy() for parts in (x, weight, bias))
    np.testing.assert_allclose(bias_scale, x_scale * weight_scale, rtol=1e-6)


def test_tolerances_know_of_the_lost_bit(bundle: Bundle, blueprint: Blueprint, tracer: Tracer, tmp_path: Path) -> None:
    options = QuantizationOptions(smooth=False, reduce_range=True)
    _, reduced = bundle("int8-dynamic", quantization=REDUCED)
    whole = export_bundle(blueprint, tmp_path / "whole", "int8-dynamic", tracer=tracer)
    ratios = [a.noise / b.noise for a, b in zip(reduced.tolerances, whole.tolerances, strict=True)]
    assert all(1.1 < ratio < 2.1 for ratio in ratios), ratios
    static, _ = bundle("int8", quantization=options)
    measured = {r.tensor: r.rel_l2 for r in verify(static).reports if r.mode == "teacher-forced"}
    noise = {t.tensor: t.noise for t in load_bundle(static).manifest.tolerances if t.component != "pipeline"}
    assert all(0.6 < measured[tensor] / noise[tensor] < 1.5 for tensor in measured)


def test_the_emulation_rounds_to_seven_bits() -> None:
    weight = torch.randn(32, 8)
    steps = weight.abs().amax(0) / 64
    levels = round_weight(weight, 1, SCHEMES["cpu-reduced"]) / steps
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max() == pytest.approx(64)


def test_the_claim_is_checked(bundle: Bundle) -> None:
    path, manifest = bundle("int8-dynamic", quantization=REDUCED)
    assert verify_bundle(path).breaches == ()
    graph = path / manifest.component("decoder").onnx
    model = ir.load(graph)
    value = next(v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8 and len(v.shape or ()) > 1)
    assert value.const_value is not None
    integers = value.const_value.numpy().copy()
    integers[0, 0] = 65
    value.const_value = ir.tensor(integers, name=value.name)
    ir.save(model, graph)
    (path / MANIFEST_NAME).unlink()
    seal(manifest, path)
    (breach,) = verify_bundle(path).breaches
    assert (breach.component, breach.rule) == ("decoder", "weight-range")
    assert "65; a reduced range has -64 to 64" in breach.why


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bisect_exports_again_with_seven_bits(
    bundle: Bundle, blueprint: Blueprint, tracer: Tracer, precision: str
) -> None:
    path, _ = bundle(precision, quantization=REDUCED)
    found = bisect(path, blueprint, tracer=tracer)
    assert found.diagnoses == ()
    assert found.compared > 0


@pytest.mark.parametrize(
    ("precision", "target", "message"),
    [
        ("fp16", "cpu", "--reduce-range.* is an option of int8 and int8-dynamic, got fp16: export one of these"),
        ("fp32", "cpu", "got fp32"),
        ("fp8", "hopper", "got fp8"),
        ("int8", "rtx", "--reduce-range.* is for target cpu, .* got rtx, .*: leave it out"),
        ("int8", "jetson-orin", "got jetson-orin"),
    ],
)
def test_where_it_gains_nothing_it_is_refused(bundle: Bundle, precision: str, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bundle(precision, target=target, quantization=REDUCED)


class Loud(nn.Module):
    """Each output adds up 256 products of the largest activation and the largest weight there are."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Linear(256, 32)
        nn.init.constant_(self.product.weight, 0.5)
        nn.init.constant_(self.product.bias, 0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.product(x)
        return product


@pytest.fixture(scope="module")
def loud() -> Blueprint:
    x, y = TensorSpec("x", "float32", ("batch", 8, 256)), TensorSpec("y", "float32", ("batch", 8, 32))
    component = Component("layer", Loud().eval().requires_grad_(False), (x,), (y,))
    pipeline = Pipeline((x,), (y,), (Step("layer", {"x": "x"}, {"y": "y"}, "encode"),))
    cut = Cut((component,), pipeline, Profile("default", {"batch": Range(1, 1, 4)}))
    feeds = ({"x": np.full((2, 8, 256), 3.0, np.float32)},)
    return Blueprint(Source("loud", "toy", "0" * 64, {}, pretrained=False), cut, feeds, feeds)


def error(path: Path, blueprint: Blueprint) -> float:
    """With signed weights left signed, as sessions leave them where products don't saturate."""
    options = ort.SessionOptions()
    feeds = blueprint.golden[0]
    got = ort.InferenceSession(path / "onnx" / "layer.onnx", options).run(None, dict(feeds))[0]
    exact = blueprint.cut.components[0].module(torch.from_numpy(feeds["x"])).numpy()
    return relative_l2(exact, got)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sums_that_saturate_at_eight_bits_do_not_at_seven(loud: Blueprint, precision: str, tmp_path: Path) -> None:
    for name, options in (("eight", QuantizationOptions()), ("seven", REDUCED)):
        export_bundle(loud, tmp_path / name, precision, quantization=options)
        assert verify(tmp_path / name).passed
    assert error(tmp_path / "seven", loud) < ROOM
    if products_saturate():
        assert error(tmp_path / "eight", loud) > 0.3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sessions_leave_seven_bits_signed_for_the_fast_kernels(bundle: Bundle, precision: str, tmp_path: Path) -> None:
    """Only weights that can saturate are made unsigned, and only on processors where they do."""
    kinds = {}
    for name, options in (("eight", QuantizationOptions()), ("seven", REDUCED)):
        path, _ = bundle(precision, quantization=options, overwrite=True)
        entries = ort.SessionOptions()
        avoid_saturation(entries)
        entries.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(path / "onnx" / "processor_block.onnx", entries)
        stored = onnx.load(tmp_path / "optimised.onnx").graph.initializer
        kinds[name] = {t.data_type for t in stored if len(t.dims) == 2 and t.data_type in (SIGNED, UNSIGNED)}
    assert kinds == {"seven": {SIGNED}, "eight": {UNSIGNED if products_saturate() else SIGNED}}
