"""Layers: products with a trained weight, with the same names in a graph and in PyTorch."""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

from perceiver_exporters.ir.graph import has_constant_weight, products


def weighted(graph: ir.Graph) -> list[ir.Node]:
    """Products whose second operand is a trained weight, which INT8 quantises unless the model did."""
    return [node for node in trained(graph) if not all(map(is_dequantized, node.inputs[:2]))]


def trained(graph: ir.Graph) -> list[ir.Node]:
    """Products whose second operand is a trained weight, quantised or not."""
    return [node for node in products(graph) if has_constant_weight(node)]


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes from 8-bit integers."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype in (ir.DataType.INT8, ir.DataType.UINT8)


def layer_of(node: ir.Node) -> str:
    """Path of the PyTorch module whose weight a product reads.

    Convolutions keep the name of their parameter. The weights of other products were transposed to constants without a
    name; those nodes are named after their module.
    """
    weight = str(node.inputs[1].name) if node.inputs[1] is not None else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else str(node.name).rpartition("/")[0]


def kept_nodes(graph: ir.Graph, layers: Set[str]) -> frozenset[str]:
    """Names of the weighted products of these layers."""
    return frozenset(str(node.name) for node in weighted(graph) if layer_of(node) in layers)
