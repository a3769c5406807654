"""Write RMSNorms as a quotient, the form that ONNX Runtime has a kernel for (SimplifiedLayerNormalization).

    x * (1 / sqrt(mean(x^2) + epsilon)) * scale = x / sqrt(mean(x^2) + epsilon) * scale

ONNX has an operator from opset 23 on, above the 20 of TensorRT targets. Squares and mean are in FP32 in all precisions.
"""

from __future__ import annotations

import numpy as np

from perceiver_exporters.ir.builder import NodeBuilder, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, distinct_shapes
from perceiver_exporters.rules.matchers.norms import WrittenNorm, written_norm
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Rewrite every RMSNorm that multiplies by a reciprocal."""
    shapes = distinct_shapes(sized) if any(node.op_type == "Sqrt" for node in sized.graph) else {}
    found = [norm for node in sized.graph if (norm := written_norm(node, shapes)) is not None and not norm.centred]
    chosen = [norm for norm in found if not norm.plain]
    for norm in chosen:
        _write(sized, norm)
    if chosen:
        return Applied(", ".join(norm.name for norm in chosen))
    return Declined("every RMSNorm is a quotient" if found else "no RMSNorm")


def _write(sized: SizedGraph, norm: WrittenNorm) -> None:
    last = norm.made.producer()
    assert last is not None
    build = NodeBuilder(sized.graph, norm.name, last)
    squares = build("Pow", norm.x, np.array(2.0), name="squares")
    mean = build("ReduceMean", squares, ints(-1), keepdims=1, name="mean_square")
    root = build("Sqrt", build("Add", mean, np.array(norm.epsilon), name="stable"), name="root")
    made = build("Div", norm.x, root, name="normalized")
    replace(norm.made, made if norm.scale is None else build("Mul", made, norm.scale, name="scaled"))


ROOT_MEAN_SQUARE = RewriteRule("root-mean-square", "RMSNorms as a quotient, which ONNX Runtime fuses", apply)
