"""Modules that were quantised before keep their scales at int8."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from factories.modules import Foreign
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_deploy.api.verify import verify
from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.ir.prequantized import quantizers
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import CheckError, UsageError
from perceiver_runtime.tensors import TensorSpec

X = (TensorSpec("x", "float32", ("batch", 6, 32)),)
Y = (TensorSpec("made", "float32", ("batch", 6, 16)),)
SCALES = (0.031, 0.023)


class Trained(nn.Module):
    """Two linear layers behind fake quantizers: per tensor for activations, per channel for weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(32, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.quantized(self.a, x, SCALES[0]))
        made: Tensor = self.quantized(self.b, hidden, SCALES[1])
        return made

    def quantized(self, layer: nn.Linear, x: Tensor, scale: float) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127)
        steps = layer.weight.abs().amax(1) / 100
        zeros = torch.zeros(len(steps), dtype=torch.int32)
        return F.linear(x, torch.fake_quantize_per_channel_affine(layer.weight, steps, zeros, 0, -127, 127), layer.bias)


class Buffered(Trained):
    """Scales in buffers; unsigned activations of 7 bits with a zero point."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([0.05]))
        self.register_buffer("zero", torch.tensor([60], dtype=torch.int32))

    def quantized(self, layer: nn.Linear, x: Tensor, scale: float) -> Tensor:
        assert isinstance(self.scale, Tensor)
        assert isinstance(self.zero, Tensor)
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 127)
        return F.linear(x, torch.fake_quantize_per_tensor_affine(layer.weight, 0.01, 0, -128, 127), layer.bias)


class Partly(Trained):
    """The second layer has no quantizers."""

    def quantized(self, layer: nn.Linear, x: Tensor, scale: float) -> Tensor:
        return layer(x) if layer is self.b else super().quantized(layer, x, scale)


class FourBits(Trained):
    """A weight of 4 bits."""

    def quantized(self, layer: nn.Linear, x: Tensor, scale: float) -> Tensor:
        return F.linear(x, torch.fake_quantize_per_tensor_affine(layer.weight, 0.05, 0, -8, 7), layer.bias)


@cache
def _tracer(kind: type[Trained]) -> SharedTraces:
    return SharedTraces()


def _export(
    kind: type[Trained], folder: Path, precision: str = "int8", target: str = "cpu", *, data: bool = False
) -> Path:
    blueprint = Foreign(kind, X, Y).blueprint()
    if not data:
        blueprint = dataclasses.replace(blueprint, calibration=())
    export_bundle(blueprint, folder / "b", precision, target, tracer=_tracer(kind))  # type: ignore[arg-type]
    return folder / "b"


def _graph(path: Path) -> ir.Graph:
    bundle = load_bundle(path)
    (component,) = bundle.manifest.components
    return stored_graph(bundle, component.onnx).graph


def _scales(graph: ir.Graph) -> list[float]:
    return [float(constant_of(node.inputs[1]).numpy()) for node in quantizers(graph)]


@pytest.mark.parametrize("target", ["cpu", "rtx"])
def test_scales_are_kept_and_no_data_is_needed(target: str, tmp_path: Path) -> None:
    path = _export(Trained, tmp_path, target=target)
    graph = _graph(path)
    assert _scales(graph) == pytest.approx(SCALES)
    weights = [node for node in graph if node.op_type == "DequantizeLinear" and constant_of(node.inputs[0]) is not None]
    assert len(weights) == 2
    module = Foreign(Trained, X, Y).blueprint().cut.components[0].module
    steps = module.a.weight.abs().amax(1).numpy() / 100
    np.testing.assert_allclose(constant_of(weights[0].inputs[1]).numpy(), steps, rtol=1e-6)
    assert verify(path).passed


def test_zero_points_keep_their_range_and_tensorrt_refuses_them(tmp_path: Path) -> None:
    path = _export(Buffered, tmp_path)
    assert _scales(_graph(path)) == pytest.approx([0.05, 0.05])
    assert verify(path).passed
    with pytest.raises(CheckError, match="symmetric INT8, got zero point -68"):
        _export(Buffered, tmp_path / "rtx", target="rtx")


def test_what_has_no_quantizer_is_calibrated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none for 1 products, b/MatMul among them, and no calibration data"):
        _export(Partly, tmp_path)
    path = _export(Partly, tmp_path, data=True)
    assert _scales(_graph(path))[0] == pytest.approx(SCALES[0])
    assert len(quantizers(_graph(path))) == 2
    assert verify(path).passed


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-dynamic"])
def test_other_precisions_are_refused(precision: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"2 quantizers of its own.*got {precision}: export int8"):
        _export(Trained, tmp_path, precision, data=True)
    assert not (tmp_path / "b").exists()


def test_fewer_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="integers from -8 to 7: only 8 bits are kept"):
        _export(FourBits, tmp_path)
