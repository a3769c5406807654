"""Attention scores of queries that are sums of table rows (one table per axis of a video), looked up per table.

A query x is the sum of one row of each table, and LayerNorm is linear up to one scale per query, so

    scores = rstd * (sum of T_i G K^T) + c K^T,      G = centre(g Wq)

The scores of each table's rows are computed once, for t + h + w rows instead of t * h * w queries; each query then adds
one row of scores per table. Mean and variance are looked up in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, ints, replace
from perceiver_exporters.ir.flops import gigaflop
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import exempt, per_head
from perceiver_exporters.rules.matchers.attention import Query, array_of, operand, projected_query
from perceiver_exporters.rules.matchers.table_lookups import Lookup, find_normed_rows
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class TableQueries:
    """Scores (B, heads, N, M) of queries projected from normalised table rows."""

    scores: ir.Node
    heads: int
    query: Query
    norm: ir.Node
    lookups: tuple[Lookup, ...]

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Look up scores if that takes fewer FLOPs."""
    found = [match for node in sized.graph if (match := _match(node)) is not None]
    if not found:
        return Declined("no queries are normalised sums of rows of several tables")
    shapes = static_shapes(sized.opt)
    for match in found:
        *_, queries, keys = shapes[str(match.scores.outputs[0].name)]
        channels, qk = match.query.projection.weight.shape
        rows = 1 + sum(len(lookup.table) for lookup in match.lookups)
        as_it_is, looked_up = 2 * queries * qk * (channels + keys), 2 * rows * qk * keys
        if looked_up >= as_it_is:
            return Declined(f"looked up {gigaflop(looked_up)}, as it is {gigaflop(as_it_is)}")
    for match in found:
        _rewrite(sized.graph, match)
    return Applied(", ".join(f"{a.name}: from {len(a.lookups)} tables" for a in found))


def _match(node: ir.Node) -> TableQueries | None:
    query = projected_query(operand(node, 0)) if node.op_type == "MatMul" else None
    normed = find_normed_rows(query.projection.x) if query else None
    shape = node.outputs[0].shape
    heads = shape[1] if shape is not None and len(shape) == 4 else None
    if query is None or normed is None or len(normed.rows.lookups) < 2 or not isinstance(heads, int):
        return None
    return TableQueries(node, heads, query, normed.norm, normed.rows.lookups)


def _rewrite(graph: ir.Graph, match: TableQueries) -> None:
    build, keys = NodeBuilder(graph, match.name, match.scores), operand(match.scores, 1)
    scale, shift = (np.asarray(array_of(value), np.float64) for value in match.norm.inputs[1:3])
    weight = match.query.projection.by_head(match.heads) * match.query.scale  # (heads, C, E)
    centred = weight * scale[:, None]
    centred -= centred.mean(1, keepdims=True)
    bias = match.query.projection.bias_by_head(match.heads) * match.query.scale + np.einsum("c,hce->he", shift, weight)

    def scored(rows: Float64Array, name: str) -> ir.Value:
        """Scores (B, heads, R, M) of rows (heads, R, E)."""
        return exempt(build("MatMul", per_head(rows), keys, name=name))

    indices = [build("Squeeze", one.index, ints(1), name="rows") for one in match.lookups]
    tables = [scored(one.table @ centred, "table_scores") for one in match.lookups]
    looked_up = [
        build("Gather", table, index, axis=2, name="looked_up") for table, index in zip(tables, indices, strict=True)
    ]
    rstd = _rstd(build, match, indices)
    scaled = build("Mul", _sum(build, looked_up, "summed_scores"), rstd, name="scaled_scores")
    replace(match.scores.outputs[0], build("Add", scaled, scored(bias[:, None], "bias_scores"), name="scores"))


def _rstd(build: NodeBuilder, match: TableQueries, indices: list[ir.Value]) -> ir.Value:
    """Reciprocal standard deviation of the queries, (N, 1)."""
    tables = [lookup.table for lookup in match.lookups]

    def total(of: list[Float64Array], name: str) -> ir.Value:
        """Mean over the channels of each query, (N, 1)."""
        columns = [each.mean(1, keepdims=True) for each in of]
        parts = [build("Gather", c, i, axis=0, name=name) for c, i in zip(columns, indices, strict=True)]
        return _sum(build, parts, name)

    mean, squares = total(tables, "mean"), total([table**2 for table in tables], "squares")
    variance = build("Sub", squares, build("Mul", mean, mean, name="mean_squared"), name="variance")
    epsilon = np.array(match.norm.attributes.get_float("epsilon", 1e-5))
    deviation = build("Sqrt", build("Add", variance, epsilon, name="stable"), name="deviation")
    return build("Reciprocal", deviation, name="rstd")


def _sum(build: NodeBuilder, values: list[ir.Value], name: str) -> ir.Value:
    return reduce(lambda left, right: build("Add", left, right, name=name), values)


GATHERED_SCORES = RewriteRule(
    "gathered-scores",
    "scores of queries that are sums of table rows, looked up per table and added",
    apply,
    backends=("onnxruntime",),
)
