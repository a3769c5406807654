"""Insertion of nodes into a graph."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from perceiver_runtime.tensors import Array

Float64Array = npt.NDArray[np.float64]
"""Arithmetic on weights before they are rounded to FP32 and stored."""
Operand = ir.Value | Array


class NodeBuilder:
    """Inserts nodes before `anchor`, named after `scope`. Arrays become initializers; floating-point ones are FP32."""

    def __init__(self, graph: ir.Graph, scope: str, anchor: ir.Node) -> None:
        self._graph = graph
        self._scope = scope
        self._anchor = anchor
        self._taken = {str(v.name) for n in graph for v in n.outputs} | set(graph.initializers)

    def __call__(self, op: str, *operands: Operand, name: str = "", domain: str = "", **attributes: Any) -> ir.Value:
        """Insert a node and return its only output; `name` is its name inside the scope (default: the operator)."""
        label = self._unique(name or op)
        output = ir.Value(name=label)
        inputs = [o if isinstance(o, ir.Value) else self.constant(o, f"{label}.constant") for o in operands]
        node = ir.node(op, inputs, attributes, domain=domain, outputs=[output], name=label)
        self._graph.insert_before(self._anchor, node)
        return output

    def named(self, scope: str) -> NodeBuilder:
        """A builder at the same place that names nodes after another scope."""
        made = copy(self)
        made._scope = scope
        return made

    def at(self, anchor: ir.Node) -> NodeBuilder:
        """A builder of the same names that inserts before another node."""
        made = copy(self)
        made._anchor = anchor
        return made

    def constant(self, array: Array, name: str) -> ir.Value:
        """Add an initializer; floating-point arrays are rounded to FP32."""
        stored = np.ascontiguousarray(array, np.float32) if np.issubdtype(array.dtype, np.floating) else array
        label = name if name not in self._taken else self._unique(name)
        self._taken.add(label)
        tensor = ir.tensor(stored, name=label)
        value = ir.Value(name=label, shape=ir.Shape(stored.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _unique(self, name: str) -> str:
        inside = not self._scope or name.startswith((f"{self._scope}/", f"{self._scope}."))
        stem = name if inside else f"{self._scope}/{name}"
        label, n = stem, 1
        while label in self._taken:
            label, n = f"{stem}_{n}", n + 1
        self._taken.add(label)
        return label


def replace(old: ir.Value, new: ir.Value) -> None:
    """Replace all uses of `old` by `new`; a graph output keeps its name and type."""
    graph = _graph(old)
    if old.is_graph_output():
        name = old.name
        old.name, new.name = f"{name}/replaced", name
        new.shape, new.type = old.shape, old.type
        graph.outputs[graph.outputs.index(old)] = new
    for node, index in list(old.uses()):
        node.replace_input_with(index, new)


def ints(*values: int) -> Array:
    """INT64 operand: axes or a shape."""
    return np.array(values, np.int64)


def _graph(value: ir.Value) -> ir.Graph:
    node = value.producer()
    assert node is not None  # initializers and inputs are not replaced
    assert isinstance(node.graph, ir.Graph)
    return node.graph
