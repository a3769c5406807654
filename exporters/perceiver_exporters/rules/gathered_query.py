"""Queries looked up in a learned table: the table is normalised and projected at export, and looked up afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.rules.constant_query import layer_norm
from perceiver_exporters.rules.draft import Draft, replace
from perceiver_exporters.rules.rule import Applied, Context, Declined, Rule, Verdict
from perceiver_exporters.rules.sites import Projection, array_of, operand, producer, sites
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Lookup:
    """`query` projects the normalised rows that `gather` takes from `table` (rows, C), after `headed` added an axis."""

    query: Projection
    norm: ir.Node
    headed: ir.Node
    gather: ir.Node
    table: Array


def apply(model: ir.Model, _: Context) -> Verdict:
    """Project the tables that queries are taken from."""
    found = [
        found for site in sites(model.graph) if (query := site.asked_by()) and (found := _lookup(query.projection))
    ]
    for lookup in found:
        _rewrite(model.graph, lookup)
    if not found:
        return Declined("no query is looked up in a constant table")
    return Applied(", ".join(str(lookup.query.product.name) for lookup in found))


def _lookup(query: Projection) -> Lookup | None:
    norm = producer(query.x, "LayerNormalization")
    headed = producer(norm.inputs[0], "Unsqueeze") if norm else None
    gather = producer(headed.inputs[0], "GatherND") if headed else None
    table = array_of(gather.inputs[0]) if gather else None
    axes = array_of(headed.inputs[1]) if headed else None
    if norm is None or headed is None or gather is None or table is None or table.ndim != 2 or axes is None:
        return None
    usable = axes.tolist() == [0] and not gather.attributes.get_int("batch_dims", 0)
    return Lookup(query, norm, headed, gather, table) if usable and array_of(norm.inputs[1]) is not None else None


def _rewrite(graph: ir.Graph, lookup: Lookup) -> None:
    product = lookup.query.product
    write = Draft(graph, str(product.name).rsplit("/", 1)[0], product)
    projected = layer_norm(lookup.table.astype(np.float64), lookup.norm) @ lookup.query.weight.astype(np.float64)
    rows = write("GatherND", projected, operand(lookup.gather, 1), name="rows")
    replace(product.outputs[0], write("Unsqueeze", rows, operand(lookup.headed, 1), name="queries"))


GATHERED_QUERY = Rule("gathered-query", "queries looked up in a table that is projected at export", apply)
