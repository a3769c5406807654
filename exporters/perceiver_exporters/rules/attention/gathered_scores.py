"""Queries put together from several tables (one per axis of a video): their scores are looked up instead.

A query x is the sum of one row from each table, and LayerNorm is linear up to one scale per query, so

    scores = rstd * (sum of T_i G K^T) + c K^T,      G = centre(g Wq)

Every table's rows meet the keys once, which for t + h + w rows costs what as many queries do; each query then adds up
one row of scores per table. Mean and variance are looked up the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, Exact, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import exempt, gigaflop, per_head
from perceiver_exporters.rules.matchers.attention import Query, array_of, operand, projected_query
from perceiver_exporters.rules.matchers.table_lookups import Lookup, find_normed_rows
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class Asking:
    """Scores (B, heads, N, M) of queries that are projected from normalised rows of tables."""

    scores: ir.Node
    heads: int
    query: Query
    norm: ir.Node
    lookups: tuple[Lookup, ...]

    @property
    def name(self) -> str:
        """Name of the module that attends."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Look the scores up wherever that counts fewer FLOPs."""
    found = [asking for node in sized.graph if (asking := _asking(node)) is not None]
    if not found:
        return Declined("no queries are put together from rows of several tables under LayerNorm")
    shapes = static_shapes(sized.opt)
    for asking in found:
        *_, queries, keys = shapes[str(asking.scores.outputs[0].name)]
        channels, qk = asking.query.projection.weight.shape
        rows = 1 + sum(len(lookup.table) for lookup in asking.lookups)
        as_it_is, looked_up = 2 * queries * qk * (channels + keys), 2 * rows * qk * keys
        if looked_up >= as_it_is:
            return Declined(f"looked up {gigaflop(looked_up)}, as it is {gigaflop(as_it_is)}")
    for asking in found:
        _rewrite(sized.graph, asking)
    return Applied(", ".join(f"{a.name}: from {len(a.lookups)} tables" for a in found))


def _asking(node: ir.Node) -> Asking | None:
    query = projected_query(operand(node, 0)) if node.op_type == "MatMul" else None
    normed = find_normed_rows(query.projection.x) if query else None
    shape = node.outputs[0].shape
    heads = shape[1] if shape is not None and len(shape) == 4 else None
    if query is None or normed is None or len(normed.rows.lookups) < 2 or not isinstance(heads, int):
        return None
    return Asking(node, heads, query, normed.norm, normed.rows.lookups)


def _rewrite(graph: ir.Graph, asking: Asking) -> None:
    write, keys = Draft(graph, asking.name, asking.scores), operand(asking.scores, 1)
    scale, shift = (np.asarray(array_of(value), np.float64) for value in asking.norm.inputs[1:3])
    weight = asking.query.projection.by_head(asking.heads) * asking.query.scale  # (heads, C, E)
    asked = weight * scale[:, None]
    asked -= asked.mean(1, keepdims=True)
    bias = asking.query.projection.bias_by_head(asking.heads) * asking.query.scale + np.einsum(
        "c,hce->he", shift, weight
    )

    def scored(rows: Exact, name: str) -> ir.Value:
        """What rows (heads, R, E) score with the keys, (B, heads, R, M)."""
        return exempt(write("MatMul", per_head(rows), keys, name=name))

    indices = [write("Squeeze", one.index, ints(1), name="rows") for one in asking.lookups]
    tables = [scored(one.table @ asked, "table_scores") for one in asking.lookups]
    looked_up = [
        write("Gather", table, index, axis=2, name="looked_up") for table, index in zip(tables, indices, strict=True)
    ]
    rstd = _rstd(write, asking, indices)
    scaled = write("Mul", _sum(write, looked_up, "summed_scores"), rstd, name="scaled_scores")
    replace(asking.scores.outputs[0], write("Add", scaled, scored(bias[:, None], "bias_scores"), name="scores"))


def _rstd(write: Draft, asking: Asking, indices: list[ir.Value]) -> ir.Value:
    """One over the queries' deviation, (N, 1)."""
    tables = [lookup.table for lookup in asking.lookups]

    def total(of: list[Exact], name: str) -> ir.Value:
        """Sums over each query's channels, as means, (N, 1)."""
        columns = [each.mean(1, keepdims=True) for each in of]
        parts = [write("Gather", c, i, axis=0, name=name) for c, i in zip(columns, indices, strict=True)]
        return _sum(write, parts, name)

    mean, squares = total(tables, "mean"), total([table**2 for table in tables], "squares")
    variance = write("Sub", squares, write("Mul", mean, mean, name="mean_squared"), name="variance")
    epsilon = np.array(asking.norm.attributes.get_float("epsilon", 1e-5))
    deviation = write("Sqrt", write("Add", variance, epsilon, name="stable"), name="deviation")
    return write("Reciprocal", deviation, name="rstd")


def _sum(write: Draft, values: list[ir.Value], name: str) -> ir.Value:
    return reduce(lambda left, right: write("Add", left, right, name=name), values)


GATHERED_SCORES = RewriteRule(
    "gathered-scores",
    "scores of queries that are put together from several tables, looked up and added",
    apply,
    backends=("onnxruntime",),
)
