"""Static INT8: constant weights per channel, activations per tensor over the range seen on real inputs, in Q/DQ form.

Only products with a constant weight are quantised, each by name: ONNX Runtime's quantiser would otherwise take
products of two activations (scores, weighted values) too, whatever its options say. Normalisation, softmax and the
residual stream stay in floating point. A tensor that feeds several products has one quantiser.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from perceiver_exporters.graph import has_constant_weight, products
from perceiver_exporters.precision.precision import Feeds, Request
from perceiver_exporters.quiet import quiet
from perceiver_runtime.errors import CheckError, UnavailableError


@dataclass(frozen=True)
class Scheme:
    """How a backend's kernels want their integers.

    `activation` and `weight` are `uint8` or `int8`; `symmetric` puts the activations' zero point at 0; `bias`
    quantises biases to INT32; `conv_output` quantises what a convolution returns. Weights are symmetric always.
    """

    activation: str
    weight: str
    symmetric: bool
    bias: bool
    conv_output: bool


SCHEMES = {
    # Unsigned weights: on AVX2 processors without VNNI, products with signed ones add pairs in 16 bits and saturate,
    # which adds to a layer's error unseen. ONNX Runtime's integer Gemm wants its bias in integers, too, and its integer
    # convolution an output scale; without, they compute in floating point.
    "cpu": Scheme("uint8", "uint8", symmetric=False, bias=True, conv_output=True),
    # TensorRT takes symmetric INT8 only, and refuses INT32 biases.
    "tensorrt": Scheme("int8", "int8", symmetric=True, bias=False, conv_output=False),
}
WEIGHT_RANGE = {"uint8": (-128, 127), "int8": (-127, 127)}
"""Integers that a weight may take, less the zero point."""


def rewrite(model: ir.Model, request: Request) -> ir.Model:
    """Quantise an FP32 graph; returns a new one.

    Raises UnavailableError without onnxruntime, CheckError if any product was left in floating point.
    """
    scheme = SCHEMES[request.scheme]
    chosen = [node for node in products(model.graph) if has_constant_weight(node)]
    if not chosen:
        return model
    quantized = _quantize(model, [str(node.name) for node in chosen], request, scheme)
    expected = {str(n.inputs[0].name) for n in chosen if n.inputs[0] is not None}
    if scheme.conv_output:
        expected |= {str(n.outputs[0].name) for n in chosen if n.op_type == "Conv"}
    found = sorted(str(value.name) for value in quantizers(quantized.graph))
    if found != sorted(expected):
        raise CheckError(
            f"component {request.component}: expected one activation quantiser on each of {sorted(expected)}, "
            f"found {found}: the rest would compute in floating point unseen"
        )
    return quantized


def quantizers(graph: ir.Graph) -> list[ir.Value]:
    """The activations that a QuantizeLinear reads; a tensor quantised twice appears twice."""
    nodes = (node for node in graph if node.op_type == "QuantizeLinear")
    return [v for node in nodes if (v := node.inputs[0]) is not None and not v.is_initializer()]


def _quantize(model: ir.Model, nodes: list[str], request: Request, scheme: Scheme) -> ir.Model:
    try:
        from onnxruntime import quantization as ort
    except ImportError as error:
        raise UnavailableError(f"int8 needs onnxruntime to calibrate: {error}; pip install onnxruntime") from error
    types = {"uint8": ort.QuantType.QUInt8, "int8": ort.QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "quantized.onnx")
        ort.quantize_static(
            ir.to_proto(model),
            path,
            _Reader(request.calibration()),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=types[scheme.activation],
            weight_type=types[scheme.weight],
            extra_options={
                "ActivationSymmetric": scheme.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": scheme.bias,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", *([] if scheme.conv_output else ["Conv"])],
            },
        )
        quantized = ir.from_proto(onnx.load(path))
    quantized.metadata_props.update(model.metadata_props)
    return quantized


class _Reader:
    """Streams calibration inputs to ONNX Runtime."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, object] | None:
        feeds = next(self._feeds, None)
        return None if feeds is None else dict(feeds)
