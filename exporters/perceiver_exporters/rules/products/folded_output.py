"""Fold the output projection of attention with one head into its value projection, if the output is narrower.

    (A (x Wv + bv)) Wo = A (x (Wv Wo) + bv Wo)

The sum over keys then has the output's width.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints, replace
from perceiver_exporters.ir.flops import gigaflop
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules.matchers.attention import operand
from perceiver_exporters.rules.matchers.attention_output import AttentionOutput, find_single_head_output
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Fold all output projections for which that takes fewer FLOPs."""
    found = [ending for node in sized.graph if (ending := find_single_head_output(node)) is not None]
    if not found:
        return Declined("no attention of one head is followed by its output projection")
    shapes = static_shapes(sized.opt)
    costs = [_flops(ending, shapes) for ending in found]
    chosen = [ending for ending, (as_it_is, folded) in zip(found, costs, strict=True) if folded < as_it_is]
    if not chosen:
        return Declined("; ".join(f"folded {gigaflop(folded)}, as it is {gigaflop(now)}" for now, folded in costs))
    for ending in chosen:
        _fold(sized.graph, ending)
    return Applied(", ".join(ending.name for ending in chosen))


def _flops(ending: AttentionOutput, shapes: Shapes) -> tuple[int, int]:
    batch, _, queries, keys = shapes[str(operand(ending.weighted, 0).name)]
    channels, v = ending.value.weight.shape
    width = ending.output.weight.shape[1]
    as_it_is = keys * channels * v + queries * keys * v + queries * v * width
    return 2 * batch * as_it_is, 2 * batch * (keys * channels * width + queries * keys * width)


def _fold(graph: ir.Graph, ending: AttentionOutput) -> None:
    value, matrix = ending.value, ending.output.weight.astype(np.float64)
    build = NodeBuilder(graph, ending.name, ending.weighted)
    product = build(
        "MatMul", value.x, value.weight.astype(np.float64) @ matrix, name=f"{ending.name}.value/with_output"
    )
    values = build("Add", product, value.bias.astype(np.float64) @ matrix, name="value_output_bias")
    weights = operand(ending.weighted, 0)
    attended = build("MatMul", weights, build("Unsqueeze", values, ints(1), name="values"), name="attended")
    replace(ending.output.product.outputs[0], build("Squeeze", attended, ints(1), name="merged"))


FOLDED_OUTPUT = RewriteRule(
    "folded-output",
    "output projections of one head folded into value projections",
    apply,
    backends=("onnxruntime",),
)
