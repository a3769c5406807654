"""Dynamic INT8: constant weights per channel, in integers as stored; activations over the range that each run has.

Nothing is calibrated. `DynamicQuantizeLinear` takes the range of a whole tensor, all rows of a batch together, and a
tensor that feeds several products has one. The graph is in Q/DQ form, like static INT8.

| Node | Becomes |
|---|---|
| MatMul | the same, of dequantised operands |
| Gemm, MatMul of a matrix | a Gemm without a bias, and an Add: with one, ONNX Runtime runs it in floating point |
| Conv | stays in FP32, and is recorded as kept: ONNX Runtime's `ConvInteger` takes 2 to 4 times as long as FP32 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from perceiver_exporters.graph import constant_of
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.int8 import SCHEMES, Scheme
from perceiver_exporters.precision.layers import kept_nodes, layer_of, weighted
from perceiver_exporters.precision.plan import ComponentPlan
from perceiver_exporters.precision.precision import Request
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Array


def make_plan(model: ir.Model) -> ComponentPlan:
    """Every product with a weight in integers, but convolutions."""
    nodes = weighted(model.graph)
    convolutions = frozenset(layer_of(node) for node in nodes if node.op_type == "Conv")
    return ComponentPlan(Statistics(), "", kept=convolutions, layers=frozenset(map(layer_of, nodes)))


def rewrite(model: ir.Model, request: Request) -> ir.Model:
    """Quantise an FP32 graph; returns a new one.

    Raises CheckError without a plan, or for a product that is not with a matrix or scales its bias.
    """
    if request.plan is None:
        raise CheckError(f"component {request.component}: expected a plan of its layers, got none; see make_plan")
    quantized = model.clone()
    kept = kept_nodes(quantized.graph, request.plan.kept)
    chosen = [node for node in weighted(quantized.graph) if node.op_type != "Conv" and node.name not in kept]
    _Rewrite(quantized.graph, SCHEMES[request.scheme]).run(chosen)
    return quantized


class _Rewrite:
    """One pass over a graph; what is made of an activation or a weight is made once."""

    def __init__(self, graph: ir.Graph, scheme: Scheme) -> None:
        self._graph = graph
        self._scheme = scheme
        self._activations: dict[ir.Value, ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int], ir.Value] = {}

    def run(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            self._quantize(node)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                self._graph.initializers.pop(name)

    def _quantize(self, node: ir.Node) -> None:
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None
        assert weight is not None
        beta = node.attributes.get_float("beta", 1.0)
        if beta != 1.0 or weight.shape is None or len(weight.shape) != 2:
            raise CheckError(
                f"{node.name}: expected a product with a matrix, whose bias is added as it is, got a weight of shape "
                f"{weight.shape} and beta {beta}; export int8"
            )
        axis = 0 if node.attributes.get_int("transB", 0) else 1
        operands = [self._activation(x, node), self._weight(weight, axis, node)]
        if node.op_type == "Gemm" or (x.shape is not None and len(x.shape) == 2):
            self._matrix_product(node, operands)
        else:
            for index, value in enumerate(operands):
                node.replace_input_with(index, value)

    def _matrix_product(self, node: ir.Node, operands: list[ir.Value]) -> None:
        """A Gemm in the node's place, its bias behind it."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        output, name = node.outputs[0], str(node.name)
        given = {key: value for key, value in node.attributes.items() if key != "beta"}
        product = self._insert(node, "Gemm", operands, name, (f"{output.name}_product",), given)[0]
        made = product if bias is None else self._insert(node, "Add", [product, bias], f"{name}_bias")[0]
        made.shape, made.type = output.shape, output.type
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], [], [output], [made])
        made.name = str(output.name)

    def _activation(self, x: ir.Value, reader: ir.Node) -> ir.Value:
        if x not in self._activations:
            parts = tuple(f"{x.name}_{part}" for part in ("QuantizeLinear_Output", "scale", "zero_point"))
            quantized = self._insert(reader, "DynamicQuantizeLinear", [x], f"{x.name}_QuantizeLinear", parts)
            self._activations[x] = self._dequantized(quantized, str(x.name), reader)
        return self._activations[x]

    def _weight(self, weight: ir.Value, axis: int, reader: ir.Node) -> ir.Value:
        if (weight, axis) not in self._weights:
            tensor = constant_of(weight)
            assert tensor is not None
            integers, scale = _rounded(tensor.numpy(), axis, self._scheme)
            arrays = {"quantized": integers, "scale": scale, "zero_point": np.zeros(scale.shape, np.int8)}
            name = str(weight.name) if (weight, 1 - axis) not in self._weights else f"{weight.name}_{axis}"
            parts = [self._constant(f"{name}_{part}", array) for part, array in arrays.items()]
            self._weights[weight, axis] = self._dequantized(parts, name, reader, axis)
        return self._weights[weight, axis]

    def _dequantized(self, parts: list[ir.Value], name: str, reader: ir.Node, axis: int | None = None) -> ir.Value:
        attributes = {} if axis is None else {"axis": axis}
        output = (f"{name}_DequantizeLinear_Output",)
        return self._insert(reader, "DequantizeLinear", parts, f"{name}_DequantizeLinear", output, attributes)[0]

    def _insert(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        outputs: tuple[str, ...] = ("",),
        attributes: Mapping[str, Any] | None = None,
    ) -> list[ir.Value]:
        values = [ir.Value(name=output or name) for output in outputs]
        self._graph.insert_before(before, ir.node(operator, inputs, attributes, outputs=values, name=name))
        return values

    def _constant(self, name: str, array: Array) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value


def _rounded(weight: Array, axis: int, scheme: Scheme) -> tuple[Array, Array]:
    """A matrix in integers, and the scale of each output channel, which lie along the axis."""
    low, high = scheme.weights
    scale = (2 * np.abs(weight).max(axis=1 - axis, keepdims=True) / (high - low)).astype(np.float32)
    scale[scale == 0] = 1
    integers = np.clip(np.rint(weight / scale), low, high).astype(np.int8)
    return np.ascontiguousarray(integers), scale.reshape(-1)
