"""Compute queries, keys and values of self-attention in one product and split the result.

TensorRT does this by itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import AttentionSite, Projection, attention_sites, biased
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Pack the projections of every self-attention."""
    if context.integers:
        return Declined(f"{context.precision} quantises each projection separately")
    found = [(site, packed) for site in attention_sites(sized.graph) if (packed := _projections(site)) is not None]
    for site, packed in found:
        _pack(sized.graph, site, packed)
    if not found:
        return Declined("no attention projects queries, keys and values from one input")
    return Applied(f"{len(found)} x 3 products into one")


def _projections(site: AttentionSite) -> tuple[Projection, Projection, Projection] | None:
    query = site.query_projection()
    if query is None or query.projection.x is not site.x:
        return None
    return query.projection, site.key, site.value


def _pack(graph: ir.Graph, site: AttentionSite, packed: tuple[Projection, ...]) -> None:
    first = min((p.product for p in packed), key=list(graph).index)
    build = NodeBuilder(graph, site.name, first)
    weight = np.concatenate([p.weight for p in packed], axis=1)
    product = build("MatMul", site.x, weight, name="packed")
    start = 0
    for projection in packed:
        stop = start + projection.weight.shape[1]
        bounds = [np.array([n], np.int64) for n in (start, stop, 2)]
        part = build("Slice", product, *bounds, name="part")
        if projection.bias.any():
            part = build("Add", part, projection.bias, name="part_bias")
        replace(biased(projection.product), part)
        start = stop


PACKED_PROJECTIONS = RewriteRule(
    "packed-projections", "queries, keys and values in one product", apply, backends=("onnxruntime",)
)
