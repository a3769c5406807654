"""Merge two successive additions of constants, such as a bias and the learned latents of a residual."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """(x + a) + b = x + (a + b), unless x + a has other readers or a + b is larger than both.

    Otherwise the tables of a grid's two axes would become one table of all points: 102 MB for 512 latents and 224 x 224
    pixels.
    """
    if context.integers:
        return Declined("an integer product is fused with its own bias")
    done = [str(node.name) for node in list(sized.graph) if node.op_type == "Add" and _merge(sized.graph, node)]
    return Applied(", ".join(done)) if done else Declined("no successive additions of constants")


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    outer = _constant(node)
    inner = producer(operand(node, 1 - outer), "Add") if outer is not None else None
    within = _constant(inner) if inner is not None else None
    if outer is None or inner is None or within is None or len(list(inner.outputs[0].uses())) != 1:
        return False
    a, b = (array_of(operand(each, index)) for each, index in ((inner, within), (node, outer)))
    if a is None or b is None or a.dtype != np.float32 or b.dtype != np.float32 or inner.outputs[0].is_graph_output():
        return False
    if np.broadcast(a, b).size > max(a.size, b.size):
        return False
    draft = NodeBuilder(graph, str(node.name).rsplit("/", 1)[0], node)
    total = a.astype(np.float64) + b.astype(np.float64)
    replace(node.outputs[0], draft("Add", operand(inner, 1 - within), total, name="constants"))
    return True


def _constant(node: ir.Node) -> int | None:
    """Index of the constant operand of a sum, or None."""
    return next((index for index, value in enumerate(node.inputs) if array_of(value) is not None), None)


CONSTANT_SUM = RewriteRule(
    "constant-sum", "successive additions of constants, merged at export", apply, backends=("onnxruntime",)
)
