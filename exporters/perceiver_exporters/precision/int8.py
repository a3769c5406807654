"""Static INT8: constant weights per channel, activations per tensor over the range seen on real inputs, in Q/DQ form.

Only products with a constant weight are quantised, each by name: ONNX Runtime's quantiser would otherwise take
products of two activations (scores, weighted values) too, whatever its options say. Normalisation, softmax and the
residual stream stay in floating point. A tensor that feeds several products has one quantiser.

Ranges are ours (`calibration`): ONNX Runtime's own collection keeps every activation of the whole set in memory.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.precision.layers import layer_of, weighted
from perceiver_exporters.precision.plan import ComponentPlan
from perceiver_exporters.precision.precision import Request
from perceiver_exporters.precision.smooth import smooth
from perceiver_exporters.quiet import quiet
from perceiver_runtime.errors import CheckError, UnavailableError


@dataclass(frozen=True)
class Scheme:
    """How a backend's kernels want their integers.

    `activation` and `weight` are `uint8` or `int8`; `symmetric` puts the activations' zero point at 0; `bias`
    quantises biases to INT32; `conv_output` quantises what a convolution returns. Weights are symmetric always, and of
    7 bits if `reduced`.
    """

    activation: str
    weight: str
    symmetric: bool
    bias: bool
    conv_output: bool
    reduced: bool = False

    @property
    def weights(self) -> tuple[int, int]:
        """The integers that a weight may take, less the zero point."""
        return REDUCED_RANGE if self.reduced else WEIGHT_RANGE[self.weight]


WEIGHT_RANGE = {"uint8": (-128, 127), "int8": (-127, 127)}
REDUCED_RANGE = (-64, 64)
"""What ONNX Runtime's quantisers call `reduce_range`: two products with 255 then add up to 32,640, within 16 bits."""

_CPU = Scheme("uint8", "int8", symmetric=False, bias=True, conv_output=True)
SCHEMES = {
    # Signed weights: VNNI and AMX multiply unsigned by signed integers only. Without VNNI such products add pairs in 16
    # bits and saturate, which adds to a layer's error unseen; sessions avoid it there (see
    # perceiver_runtime.backends.integer_products). ONNX Runtime's integer Gemm wants its bias in integers, too, and its
    # integer convolution an output scale; without, they compute in floating point.
    "cpu": _CPU,
    # Weights that can't saturate are left signed, and run in the fast kernels without VNNI too.
    "cpu-reduced": dataclasses.replace(_CPU, reduced=True),
    # TensorRT takes symmetric INT8 only, and refuses INT32 biases.
    "tensorrt": Scheme("int8", "int8", symmetric=True, bias=False, conv_output=False),
}


def rewrite(model: ir.Model, request: Request) -> ir.Model:
    """Quantise an FP32 graph as the request's plan says; returns a new one.

    Raises UnavailableError without onnxruntime, CheckError without a plan or if any product was left in floating point.
    """
    if not weighted(model.graph):
        return model
    if request.plan is None:
        raise CheckError(f"component {request.component}: expected a plan of its ranges, got none; see make_plan")
    return quantize(model, request.plan, SCHEMES[request.scheme])


def quantize(model: ir.Model, plan: ComponentPlan, scheme: Scheme) -> ir.Model:
    """The graph with all layers but the plan's `kept` quantised. Raises what `rewrite` raises."""
    smoothed = smooth(model.clone(), plan.divisors) if plan.divisors else model
    chosen = [node for node in weighted(smoothed.graph) if layer_of(node) not in plan.kept]
    if not chosen:
        return smoothed
    ranges = _ranges(chosen, plan)
    quantized = _quantize(smoothed, [str(node.name) for node in chosen], ranges, scheme)
    expected = {str(n.inputs[0].name) for n in chosen if n.inputs[0] is not None}
    if scheme.conv_output:
        expected |= {str(n.outputs[0].name) for n in chosen if n.op_type == "Conv"}
    found = sorted(str(value.name) for value in quantizers(quantized.graph))
    if found != sorted(expected):
        raise CheckError(
            f"component {model.graph.name}: expected one activation quantiser on each of {sorted(expected)}, "
            f"found {found}: the rest would compute in floating point unseen"
        )
    return quantized


def quantizers(graph: ir.Graph) -> list[ir.Value]:
    """The activations that a QuantizeLinear reads; a tensor quantised twice appears twice."""
    nodes = (node for node in graph if node.op_type == "QuantizeLinear")
    return [v for node in nodes if (v := node.inputs[0]) is not None and not v.is_initializer()]


def _ranges(chosen: list[ir.Node], plan: ComponentPlan) -> dict[str, tuple[float, float]]:
    """By tensor: what a product reads, and what a convolution returns."""
    ranges = {}
    for node in chosen:
        name = str(node.inputs[0].name) if node.inputs[0] is not None else ""
        ranges[name] = plan.statistics.tensors[name].bounds(plan.method, plan.divisors.get(layer_of(node)))
        if node.op_type == "Conv":
            name = str(node.outputs[0].name)
            ranges[name] = plan.statistics.tensors[name].bounds(plan.method)
    return ranges


def _quantize(model: ir.Model, nodes: list[str], ranges: dict[str, tuple[float, float]], scheme: Scheme) -> ir.Model:
    try:
        from onnxruntime import quantization as ort
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    except ImportError as error:
        raise UnavailableError(f"int8 needs onnxruntime's quantiser: {error}; pip install onnxruntime") from error
    types = {"uint8": ort.QuantType.QUInt8, "int8": ort.QuantType.QInt8}
    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    with quiet():
        quantizer = QDQQuantizer(
            ir.to_proto(model),
            per_channel=True,
            reduce_range=scheme.reduced,
            weight_qType=types[scheme.weight],
            activation_qType=types[scheme.activation],
            tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            extra_options={
                "ActivationSymmetric": scheme.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": scheme.bias,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", *([] if scheme.conv_output else ["Conv"])],
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: ir.Model = ir.from_proto(quantizer.model.model)
    quantized.metadata_props.update(model.metadata_props)
    return quantized
