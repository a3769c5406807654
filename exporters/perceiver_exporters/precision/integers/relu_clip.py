"""Relu and Clip behind an integer product, in a form with which ONNX Runtime keeps its integer kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import products

_ZERO = np.zeros((), np.float32)


def make_plain(graph: ir.Graph) -> None:
    """Write Relu(x) as Max(x, 0) and Clip(x, low, high) as Min(Max(x, low), high), where they alone read a product.

    Where only quantizers follow they stay: ONNX Runtime drops them, or fuses them into the product.
    """
    for node in list(_limits(graph)):
        value, output, name = node.inputs[0], node.outputs[0], str(node.outputs[0].name)
        made = []
        for operator, bound in _bounds(node):
            result = ir.Value(name=f"{name}_{operator}", shape=output.shape, type=output.type)
            made.append(ir.node(operator, [value, bound], outputs=[result], name=f"{node.name}_{operator}"))
            value = result
        if made and value is not None:
            ir.convenience.replace_nodes_and_values(graph, node, [node], made, [output], [value])
            value.name = name


def _limits(graph: ir.Graph) -> Iterator[ir.Node]:
    for product in products(graph):
        uses = tuple(product.outputs[0].uses())
        reader = uses[0].node if len(uses) == 1 and not product.outputs[0].is_graph_output() else None
        source = product.inputs[1].producer() if product.inputs[1] is not None else None
        if reader is None or reader.op_type not in ("Relu", "Clip") or source is None:
            continue
        readers = {use.node.op_type for use in reader.outputs[0].uses()}
        if source.op_type == "DequantizeLinear" and readers != {"QuantizeLinear"}:
            yield reader


def _bounds(node: ir.Node) -> list[tuple[str, ir.Value]]:
    """Operators and operands that replace a Relu or Clip, in order."""
    if node.op_type == "Relu":
        tensor = ir.tensor(_ZERO, name=f"{node.name}.zero")
        zero = ir.Value(name=tensor.name, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype), const_value=tensor)
        node.graph.register_initializer(zero)  # type: ignore[union-attr]
        return [("Max", zero)]
    return [(operator, bound) for operator, bound in zip(("Max", "Min"), node.inputs[1:], strict=False) if bound]
