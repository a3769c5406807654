"""Compute queries, keys and values of self-attention in one product and split the result.

So are keys and values again that one layer of the model projects, where no other rule took them. TensorRT does this by
itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision.integers.layers import layer_of
from perceiver_exporters.rules.matchers.attention import AttentionSite, Projection, attention_sites, biased, projection
from perceiver_exporters.rules.matchers.linear import PACKED
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Pack the projections of every self-attention."""
    if context.integers:
        return Declined(f"{context.precision} quantises each projection separately")
    found = [(site, three) for site in attention_sites(sized.graph) if (three := _projections(site)) is not None]
    for site, three in found:
        _pack(sized.graph, site.name, three)
    again = _packed_before(sized.graph)
    for layer, packed in again:
        _pack(sized.graph, layer, packed)
    if not found and not again:
        return Declined("no attention projects queries, keys and values from one input")
    counts = [f"{len(found)} x 3 products into one"] if found else []
    return Applied("; ".join(counts + [f"{len(packed)} of {layer} into one again" for layer, packed in again]))


def _packed_before(graph: ir.Graph) -> list[tuple[str, list[Projection]]]:
    """Products that the model has as one and that still read the same input, by the name of their layer."""
    parts: dict[tuple[str, ir.Value | None], list[Projection]] = defaultdict(list)
    for node in graph:
        layer = projection(biased(node)) if PACKED in node.metadata_props else None
        if layer is not None and layer.product is node and biased(node).uses():
            parts[node.metadata_props[PACKED], node.inputs[0]].append(layer)
    return [(layer_of(each[0].product), each) for each in parts.values() if len(each) > 1]


def _projections(site: AttentionSite) -> tuple[Projection, Projection, Projection] | None:
    query = site.query_projection()
    if query is None or query.projection.x is not site.x:
        return None
    return query.projection, site.key, site.value


def _pack(graph: ir.Graph, scope: str, packed: Sequence[Projection]) -> None:
    first = min((p.product for p in packed), key=list(graph).index)
    build = NodeBuilder(graph, scope, first)
    weight = np.concatenate([p.weight for p in packed], axis=1)
    product = build("MatMul", packed[0].x, weight, name="packed")
    start = 0
    for layer in packed:
        stop = start + layer.weight.shape[1]
        bounds = [np.array([n], np.int64) for n in (start, stop, 2)]
        part = build("Slice", product, *bounds, name="part")
        if layer.bias.any():
            part = build("Add", part, layer.bias, name="part_bias")
        replace(biased(layer.product), part)
        start = stop


PACKED_PROJECTIONS = RewriteRule(
    "packed-projections", "queries, keys and values in one product", apply, backends=("onnxruntime",)
)
