"""Absorb the key projection into the queries, and the value projection into the attended inputs.

See `absorption` for the algebra. It reduces FLOPs for few queries of many wide inputs: one wide head, or one query.
"""

from __future__ import annotations

import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints, replace
from perceiver_exporters.ir.flops import gigaflop
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import (
    exempt,
    per_head,
    projected_flops,
    queries_times,
    with_key_bias,
    with_value_bias,
)
from perceiver_exporters.rules.matchers.attention import AttentionSite, attention_sites
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict

MIN_ROWS = 64
"""Inputs in a batch from which on a product per head is bound by arithmetic; below, by reading the weights."""
MAX_SHARE = 0.7
"""Of the projected FLOPs, with several heads and queries: a product per head is slower than one of all heads.

Chosen on one processor (AVX-512), so that no module of `benchmarks/wild` is slower than without the rule.
"""


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Absorb the projections of every attention for which that takes fewer FLOPs."""
    found = list(attention_sites(sized.graph))
    if not found:
        return Declined("no attention whose keys and values are projected from one input")
    shapes = static_shapes(sized.opt)
    reasons = [reason for site in found if (reason := _refusal(site, shapes, context))]
    chosen = [site for site in found if not _refusal(site, shapes, context)]
    for site in chosen:
        _absorb(sized.graph, site)
    return Applied(", ".join(site.name for site in chosen)) if chosen else Declined("; ".join(dict.fromkeys(reasons)))


def _refusal(site: AttentionSite, shapes: Shapes, context: Context) -> str:
    as_it_is, absorbed = projected_flops(site, shapes)
    if absorbed >= as_it_is:
        return f"absorbed {gigaflop(absorbed)}, projected {gigaflop(as_it_is)}"
    batch, heads, queries, keys = shapes[str(site.scores.outputs[0].name)]
    if min(heads, queries) > 1 and (batch * keys < MIN_ROWS or absorbed > MAX_SHARE * as_it_is):
        return f"absorbed {gigaflop(absorbed)}, projected {gigaflop(as_it_is)}: no gain in {heads} products per head"
    if context.integers and site.heads > 1:
        return "a value projection per head has no integer kernel"
    return ""


def _absorb(graph: ir.Graph, site: AttentionSite) -> None:
    build = NodeBuilder(graph, site.name, site.scores)
    heads = site.heads
    inputs = build("Unsqueeze", site.x, ints(1), name="inputs")
    queries = queries_times(build, site, site.key.by_head(heads).transpose(0, 2, 1), "input_queries")
    raw = build("MatMul", queries, build("Transpose", inputs, perm=[0, 1, 3, 2], name="keys"), name="scores")
    replace(site.scores.outputs[0], with_key_bias(build, site, raw, site.key.bias_by_head(heads)))

    after = NodeBuilder(graph, site.name, site.weighted)
    mean = after("MatMul", site.weights, inputs, name="attended_inputs")
    values = after("MatMul", mean, per_head(site.value.by_head(heads)), name=f"{site.name}.value/absorbed")
    if heads > 1:
        exempt(values, "a projection per head has no integer kernel")
    replace(site.weighted.outputs[0], with_value_bias(after, site, values, site.value.bias_by_head(heads)))


ABSORBED_ATTENTION = RewriteRule(
    "absorbed-attention",
    "key and value projections absorbed into the queries and the attended inputs",
    apply,
    backends=("onnxruntime",),
)
