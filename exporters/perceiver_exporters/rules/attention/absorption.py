"""What the rules that absorb projections share: matrices that meet the queries, and what the weighted inputs become.

For one head, with keys x Wk + bk and values x Wv + bv of inputs x (M, C):

    q (x Wk + bk)^T = (q Wk^T) x^T + q bk          w (x Wv + bv) = (w x) Wv + sum(w) bv

so that neither keys nor values are ever made. A softmax does not see q bk, and its weights sum to one.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, Exact, Operand, ints
from perceiver_exporters.ir.graph import EXEMPT
from perceiver_exporters.ir.sized import Shapes
from perceiver_exporters.rules.matchers.attention import Site, array_of


def per_head(matrix: Exact) -> Exact:
    """A stack of one matrix as that matrix: kernels take it as a weight."""
    return matrix[0] if len(matrix) == 1 else matrix


def queries_times(draft: Draft, site: Site, matrix: Exact, name: str) -> Operand:
    """The queries (., heads, N, E) times a constant (heads, E, X): a constant itself if the queries are one."""
    constant = array_of(site.query)
    if constant is not None:
        return np.asarray(constant.astype(np.float64) @ matrix)
    return exempt(draft("MatMul", site.query, per_head(matrix), name=name))


def exempt(value: ir.Value, why: str = "a few rows times a matrix made of trained ones") -> ir.Value:
    """Keep the product that makes this value out of integer arithmetic."""
    node = value.producer()
    assert node is not None
    node.metadata_props[EXEMPT] = why
    return value


def with_key_bias(draft: Draft, site: Site, scores: ir.Value, bias: Exact) -> ir.Value:
    """Scores plus what the keys' bias (heads, E) adds to them; nothing where a softmax takes it off again."""
    if site.softmax or not bias.any():
        return scores
    return draft("Add", scores, queries_times(draft, site, bias[..., None], "key_bias"), name="biased")


def with_value_bias(draft: Draft, site: Site, attended: ir.Value, bias: Exact) -> ir.Value:
    """Weighted values plus their bias (heads, F), as often as the weights count."""
    if not bias.any():
        return attended
    spread = bias[:, None, :]
    if site.softmax:
        return draft("Add", attended, spread, name="value_bias")
    total = _summed(site.weights) or draft("ReduceSum", site.weights, ints(-1), name="total", keepdims=1)
    return draft("Add", attended, draft("Mul", total, spread, name="value_bias"), name="attended")


def _summed(weights: ir.Value) -> ir.Value | None:
    """The sums of the weights (., heads, N, 1), if the graph takes them already."""
    for node, _ in weights.uses():
        axes = array_of(node.inputs[1]) if node.op_type == "ReduceSum" and len(node.inputs) > 1 else None
        if axes is not None and axes.tolist() in ([-1], [3]) and node.attributes.get_int("keepdims", True):
            return node.outputs[0]
    return None


def projected_flops(site: Site, shapes: Shapes) -> tuple[int, int]:
    """FLOPs of a site as it is (keys, values, scores, weighting), and with its projections absorbed."""
    batch, heads, queries, keys = shapes[str(site.scores.outputs[0].name)]
    channels, qk = site.key.weight.shape
    v = site.value.weight.shape[1]
    as_it_is = 2 * batch * keys * (qk + v) * (channels + queries)
    live = 0 if site.query.is_initializer() else batch * queries * qk * channels
    absorbed = 2 * (2 * batch * heads * queries * keys * channels + batch * queries * channels * v + live)
    return as_it_is, absorbed


def gigaflop(flops: int) -> str:
    """For a report."""
    digits = max(0, 2 - int(math.log10(max(flops, 1) / 1e9)))
    return f"{flops / 1e9:.{min(digits, 6)}f} GFLOP"
