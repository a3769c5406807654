"""Normalise and project at export the learned table that queries are looked up in.

Channels that are constant over all queries (a modality's padding) are part of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.constants.constant_query import layer_norm
from perceiver_exporters.rules.matchers.attention import Projection, operand, projected_query
from perceiver_exporters.rules.matchers.table_lookups import NormedRows, find_normed_rows
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class Lookup:
    """A query projection of normalised rows of one table."""

    query: Projection
    normed: NormedRows


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Project the tables that queries are looked up in."""
    found = [lookup for node in sized.graph if node.op_type == "MatMul" and (lookup := _lookup(node)) is not None]
    for lookup in found:
        _rewrite(sized.graph, lookup)
    if not found:
        return Declined("no query is looked up in a constant table")
    return Applied(", ".join(str(lookup.query.product.name) for lookup in found))


def _lookup(scores: ir.Node) -> Lookup | None:
    query = projected_query(operand(scores, 0))
    normed = find_normed_rows(query.projection.x) if query else None
    if query is None or normed is None or len(normed.rows.lookups) != 1:
        return None
    return Lookup(query.projection, normed)


def _rewrite(graph: ir.Graph, lookup: Lookup) -> None:
    product, (one,) = lookup.query.product, lookup.normed.rows.lookups
    build = NodeBuilder(graph, str(product.name).rsplit("/", 1)[0], product)
    projected = layer_norm(one.table, lookup.normed.norm) @ lookup.query.weight.astype(np.float64)
    rows = build("GatherND", projected, one.index, name="rows")
    replace(product.outputs[0], build("Unsqueeze", rows, operand(lookup.normed.headed, 1), name="queries"))


GATHERED_QUERY = RewriteRule("gathered-query", "queries looked up in a table that is projected at export", apply)
