"""Queries, keys and values of one input from one product, whose result is split.

TensorRT merges such products by itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import Projection, Site, biased, sites
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Pack the projections of every self-attention."""
    if context.integers:
        return Declined(f"{context.precision} keeps or quantises each projection by its own name")
    found = [(site, packed) for site in sites(sized.graph) if (packed := _projections(site)) is not None]
    for site, packed in found:
        _pack(sized.graph, site, packed)
    if not found:
        return Declined("no attention projects queries, keys and values from one input")
    return Applied(f"{len(found)} x 3 products into one")


def _projections(site: Site) -> tuple[Projection, Projection, Projection] | None:
    query = site.asked_by()
    if query is None or query.projection.x is not site.x:
        return None
    return query.projection, site.key, site.value


def _pack(graph: ir.Graph, site: Site, packed: tuple[Projection, ...]) -> None:
    first = min((p.product for p in packed), key=list(graph).index)
    write = Draft(graph, site.name, first)
    weight = np.concatenate([p.weight for p in packed], axis=1)
    product = write("MatMul", site.x, weight, name="packed")
    start = 0
    for projection in packed:
        stop = start + projection.weight.shape[1]
        bounds = [np.array([n], np.int64) for n in (start, stop, 2)]
        part = write("Slice", product, *bounds, name="part")
        if projection.bias.any():
            part = write("Add", part, projection.bias, name="part_bias")
        replace(biased(projection.product), part)
        start = stop


PACKED_PROJECTIONS = RewriteRule(
    "packed-projections", "queries, keys and values from one product", apply, backends=("onnxruntime",)
)
