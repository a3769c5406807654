"""Compute products of two constants at export, such as learned positions times a projection.

INT8 on TensorRT needs it as well: quantisers are placed on activations, and such a product has none.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, replace
from perceiver_exporters.ir.graph import products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Replace every MatMul and Gemm whose operands are all constant by its result."""
    done = []
    for node in list(products(sized.graph)):
        if (result := _evaluate(node)) is not None:
            draft = NodeBuilder(sized.graph, str(node.name).rsplit("/", 1)[0], node)
            replace(node.outputs[0], draft.constant(result, f"{node.name}.folded"))
            done.append(str(node.name))
    return Applied(", ".join(done)) if done else Declined("no product of two constants")


def _evaluate(node: ir.Node) -> Float64Array | None:
    operands = [array_of(value) for value in node.inputs]
    known = all(array is not None and array.dtype == np.float32 for array in operands)
    if node.op_type == "Conv" or node.outputs[0].is_graph_output() or not known:
        return None
    a, b, *bias = (np.asarray(array, np.float64) for array in operands)
    get = node.attributes  # a MatMul has none of these
    made: Float64Array = (a.T if get.get_int("transA", 0) else a) @ (b.T if get.get_int("transB", 0) else b)
    made = get.get_float("alpha", 1.0) * made
    return made + get.get_float("beta", 1.0) * bias[0] if bias else made


CONSTANT_PRODUCT = RewriteRule("constant-product", "products of two constants, computed at export", apply)
