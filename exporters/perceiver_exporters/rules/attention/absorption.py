"""Shared by rules that absorb the key and value projections of attention.

For one head, with keys x Wk + bk and values x Wv + bv of inputs x (M, C):

    q (x Wk + bk)^T = (q Wk^T) x^T + q bk          w (x Wv + bv) = (w x) Wv + sum(w) bv

so that keys and values need not be computed. softmax is invariant to q bk, and its weights sum to one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, Operand, ints
from perceiver_exporters.ir.graph import EXEMPT
from perceiver_exporters.ir.sized import Shapes
from perceiver_exporters.rules.matchers.attention import AttentionSite, array_of


def per_head(matrix: Float64Array) -> Float64Array:
    """(1, M, N) as (M, N), which kernels accept as a weight; other stacks unchanged."""
    return matrix[0] if len(matrix) == 1 else matrix


def queries_times(draft: NodeBuilder, site: AttentionSite, matrix: Float64Array, name: str) -> Operand:
    """Queries (., heads, N, E) @ constant (heads, E, X); folded to a constant if the queries are constant."""
    constant = array_of(site.query)
    if constant is not None:
        return np.asarray(constant.astype(np.float64) @ matrix)
    return exempt(draft("MatMul", site.query, per_head(matrix), name=name))


def exempt(value: ir.Value, why: str = "a few rows times a matrix made of trained ones") -> ir.Value:
    """Exempt the product that computes this value from quantisation, for the reason `why`."""
    node = value.producer()
    assert node is not None
    node.metadata_props[EXEMPT] = why
    return value


def with_key_bias(draft: NodeBuilder, site: AttentionSite, scores: ir.Value, bias: Float64Array) -> ir.Value:
    """Scores plus queries @ key bias (heads, E); unchanged under a softmax, which is invariant to it."""
    if site.softmax or not bias.any():
        return scores
    return draft("Add", scores, queries_times(draft, site, bias[..., None], "key_bias"), name="biased")


def with_value_bias(draft: NodeBuilder, site: AttentionSite, attended: ir.Value, bias: Float64Array) -> ir.Value:
    """Attended values plus their bias (heads, F) times the sum of the weights."""
    if not bias.any():
        return attended
    spread = bias[:, None, :]
    if site.softmax:
        return draft("Add", attended, spread, name="value_bias")
    total = _summed(site.weights) or draft("ReduceSum", site.weights, ints(-1), name="total", keepdims=1)
    return draft("Add", attended, draft("Mul", total, spread, name="value_bias"), name="attended")


def _summed(weights: ir.Value) -> ir.Value | None:
    """The sums of the weights (., heads, N, 1), if the graph computes them already."""
    for node, _ in weights.uses():
        axes = array_of(node.inputs[1]) if node.op_type == "ReduceSum" and len(node.inputs) > 1 else None
        if axes is not None and axes.tolist() in ([-1], [3]) and node.attributes.get_int("keepdims", True):
            return node.outputs[0]
    return None


def projected_flops(site: AttentionSite, shapes: Shapes) -> tuple[int, int]:
    """FLOPs of keys, values, scores and weighting: as they are, and with the projections absorbed."""
    batch, heads, queries, keys = shapes[str(site.scores.outputs[0].name)]
    channels, qk = site.key.weight.shape
    v = site.value.weight.shape[1]
    as_it_is = 2 * batch * keys * (qk + v) * (channels + queries)
    live = 0 if site.query.is_initializer() else batch * queries * qk * channels
    absorbed = 2 * (2 * batch * heads * queries * keys * channels + batch * queries * channels * v + live)
    return as_it_is, absorbed
