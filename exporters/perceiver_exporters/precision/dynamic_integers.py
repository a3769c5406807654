"""Dynamic INT8: weights quantised per channel at export, activations per tensor at run time.

Nothing is calibrated. `DynamicQuantizeLinear` measures the range of a whole tensor, all rows of a batch together; a
tensor that several products read has one. The graph is in Q/DQ form, like static INT8.

| Node | Becomes |
|---|---|
| MatMul | the same, of dequantised operands |
| Gemm, MatMul of a matrix | a Gemm without bias, then an Add: with a bias, ONNX Runtime computes in floating point |
| Conv | stays in FP32, and is recorded as kept: ONNX Runtime's `ConvInteger` takes 2 to 4 times as long as FP32 |
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.emulation import Product, emulate_products
from perceiver_exporters.precision.integers.layers import kept_nodes, layer_of, weighted
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.qdq import (
    Writer,
    fold_factors,
    reads_dynamic_range,
    reads_integers,
    weight_of,
)
from perceiver_exporters.precision.integers.rounding import range_of, round_activation, round_weight
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.precision import Measured, Precision, Request
from perceiver_exporters.reference import Feeds, Scope
from perceiver_runtime.errors import CheckError
from perceiver_runtime.progress import report


@dataclass(frozen=True)
class DynamicIntegers(Precision):
    """INT8 whose activation ranges are measured at run time."""

    planned: bool = True

    def plan(
        self, measured: Measured, statistics: Mapping[str, Statistics], scheme: Scheme, options: QuantizationOptions
    ) -> Plan:
        """All products with a weight except convolutions."""
        plan = {name: make_plan(graph) for name, graph in measured.graphs.items()}
        for name, layer in ((name, layer) for name, each in plan.items() for layer in sorted(each.kept)):
            report(f"{name}: convolution {layer} kept in FP32, where it is faster than in integers without fixed range")
        return plan

    def rewrite(self, model: ir.Model, request: Request) -> ir.Model:
        """Quantise an FP32 graph; returns a new one.

        Raises:
            CheckError: There is no plan, or a product is not with a matrix or scales its bias.
        """
        if request.plan is None:
            raise CheckError(f"component {request.component}: expected a quantization plan, got none")
        quantized = model.clone()
        kept = kept_nodes(quantized.graph, request.plan.kept)
        chosen = [node for node in weighted(quantized.graph) if node.op_type != "Conv" and node.name not in kept]
        _Rewrite(quantized.graph, request.scheme).run(chosen)
        return quantized

    def emulate(self, cut: Cut, calibration: Iterable[Feeds], scheme: Scheme, plan: Plan | None = None) -> Scope:
        """Activations rounded over their range at that moment, weights per channel; convolutions in FP32."""
        decided = plan if plan is not None else {c.name: ComponentPlan(Statistics()) for c in cut.components}
        return emulate_products(cut, lambda component: functools.partial(_compute, decided[component], scheme))

    def prove(self, node: ir.Node) -> bool:
        """Whether both operands are dequantised 8-bit integers, the first with a range measured at run time."""
        return reads_integers(node) and reads_dynamic_range(node)


def make_plan(model: ir.Model) -> ComponentPlan:
    """All products with a weight except convolutions."""
    nodes = weighted(model.graph)
    convolutions = frozenset(layer_of(node) for node in nodes if node.op_type == "Conv")
    return ComponentPlan(Statistics(), "", kept=convolutions, layers=frozenset(map(layer_of, nodes)))


def _compute(plan: ComponentPlan, scheme: Scheme, product: Product) -> Tensor:
    x, weight = product.x, product.weight
    if product.convolves or not plan.quantizes(plan.layer(product.modules)):
        return product.run(x, weight)
    return product.run(round_activation(x, range_of(x), scheme), round_weight(weight, 1, scheme))


class _Rewrite:
    """One pass over the products of a graph, in graph order."""

    def __init__(self, graph: ir.Graph, scheme: Scheme) -> None:
        self._writer = Writer(graph, scheme)
        self._activations: dict[ir.Value, ir.Value] = {}

    def run(self, nodes: list[ir.Node]) -> None:
        for node in nodes:
            self._quantize(node)
        self._writer.finish()

    def _quantize(self, node: ir.Node) -> None:
        fold_factors(node)
        x, weight = node.inputs[0], weight_of(node)
        assert x is not None
        beta = node.attributes.get_float("beta", 1.0)
        if beta != 1.0 or weight.ndim != 2:
            raise CheckError(
                f"{node.name}: expected a product with a matrix, whose bias is added as it is, got a weight of shape "
                f"{list(weight.shape)} and beta {beta}; export int8"
            )
        operands = [self._activation(x, node), self._writer.weight(node)[0]]
        if node.op_type == "Gemm" or (x.shape is not None and len(x.shape) == 2):
            self._matrix_product(node, operands)
        else:
            for index, value in enumerate(operands):
                node.replace_input_with(index, value)

    def _matrix_product(self, node: ir.Node, operands: list[ir.Value]) -> None:
        """Replace the node by a Gemm and an Add of its bias."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        output, name = node.outputs[0], str(node.name)
        given = {key: value for key, value in node.attributes.items() if key not in ("alpha", "beta")}
        product = self._writer.insert(node, "Gemm", operands, name, (f"{output.name}_product",), given)[0]
        made = product if bias is None else self._writer.insert(node, "Add", [product, bias], f"{name}_bias")[0]
        made.shape, made.type = output.shape, output.type
        ir.convenience.replace_nodes_and_values(self._writer.graph, node, [node], [], [output], [made])
        made.name = str(output.name)

    def _activation(self, x: ir.Value, reader: ir.Node) -> ir.Value:
        if x not in self._activations:
            parts = tuple(f"{x.name}_{part}" for part in ("QuantizeLinear_Output", "scale", "zero_point"))
            quantized = self._writer.insert(reader, "DynamicQuantizeLinear", [x], f"{x.name}_QuantizeLinear", parts)
            self._activations[x] = self._writer.dequantized(quantized, str(x.name), reader)
        return self._activations[x]
