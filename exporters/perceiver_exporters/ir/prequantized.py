"""Graphs that were quantised before: weights are stored as integers, whatever computes them and their scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from perceiver_runtime.tensors import Array


def quantizers(graph: ir.Graph) -> list[ir.Node]:
    """All QuantizeLinear nodes."""
    return [node for node in graph if node.op_type == "QuantizeLinear" and not node.domain]


def store_quantized(model: ir.Model) -> None:
    """Store what is quantised without an input of the graph, and all scales, as constants next to their products."""
    graph = model.graph
    nodes = [node for node in graph if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not node.domain]
    if not nodes:
        return
    live = _live(graph)
    read = [value for node in nodes for value in node.inputs if value is not None]
    wanted = {v for v in read if v not in live and not v.is_initializer()}
    if wanted:
        for value, array in zip(wanted, _evaluated(model, list(wanted)), strict=True):
            ir.convenience.replace_all_uses_with(value, _constant(graph, f"{value.name}.stored", array))
    for node in list(graph):
        if node.op_type == "DequantizeLinear":
            _transpose_before(graph, node)
    common.RemoveUnusedNodesPass()(model)


def _live(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on an input of the graph."""
    live = set(graph.inputs)
    for node in graph:
        if any(value in live for value in node.inputs if value is not None):
            live.update(node.outputs)
    return live


def _evaluated(model: ir.Model, values: list[ir.Value]) -> Iterator[Any]:
    part = model.clone()
    found = {v.name: v for node in part.graph for v in node.outputs}
    part.graph.outputs[:] = [found[value.name] for value in values]
    common.RemoveUnusedNodesPass()(part)
    part.graph.inputs[:] = []
    yield from ReferenceEvaluator(ir.to_proto(part)).run(None, {})


def _transpose_before(graph: ir.Graph, node: ir.Node) -> None:
    """Transpose a constant instead of what is dequantised from it, for its readers to know the axis of its scales."""
    stored = node.inputs[0]
    tensor = stored.const_value if stored is not None and stored.is_initializer() else None
    readers = list(node.outputs[0].uses())
    if tensor is None or node.outputs[0].is_graph_output() or not readers:
        return
    perms = {tuple(r.attributes["perm"].as_ints()) if r.op_type == "Transpose" else () for r, _ in readers}
    (perm,) = perms if len(perms) == 1 else ((),)
    if not perm:
        return
    array = np.ascontiguousarray(tensor.numpy().transpose(perm))
    moved = _constant(graph, f"{node.name}.transposed", array)
    axis = node.attributes.get_int("axis", 1) % array.ndim
    output = ir.Value(name=f"{node.name}.transposed_output", type=ir.TensorType(ir.DataType.FLOAT))
    output.shape = ir.Shape(array.shape)
    name = f"{node.name}/transposed"
    made = ir.node(
        "DequantizeLinear", [moved, *node.inputs[1:]], {"axis": perm.index(axis)}, outputs=[output], name=name
    )
    graph.insert_before(node, made)
    for reader, _ in readers:
        ir.convenience.replace_all_uses_with(reader.outputs[0], output)


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
