"""Factorise attention whose queries are normalised tokens [content, grid positions], one per point of a grid.

The counterpart of `separable_positions`. The query projection is absorbed into the keys, which are few:
scores = rstd * (x G) + c with G = centre(g Wq) K^T. The positions' part of x G is R[row, key] + C[column, key]. As c
differs between keys, it does not cancel in the softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import exempt, per_head
from perceiver_exporters.rules.matchers.attention import Projection, operand, projected_query
from perceiver_exporters.rules.matchers.grid_tokens import (
    Tokens,
    find_tokens,
    select_rows,
    statistics,
    with_deviation,
)
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class GridQueries:
    """Scores (B, heads, N, M) of scaled queries projected from grid tokens; the keys may be a graph input."""

    scores: ir.Node
    heads: int
    keys: int
    query: Projection
    scale: float
    tokens: Tokens

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Rewrite every attention that is centred by the points of a grid."""
    found = [match for node in sized.graph if (match := _match(sized, node)) is not None]
    if not found:
        return Declined("no queries are normalised tokens of content and grid positions")
    shapes = static_shapes(sized.opt)
    for match in found:
        _, heads, queries, keys = shapes[str(match.scores.outputs[0].name)]
        channels, qk = match.query.weight.shape
        grid, live = match.tokens.grid, match.tokens.live
        points = live + queries // grid.width + grid.width
        if points * qk * keys + queries * heads * live * keys >= queries * qk * (channels + keys):
            return Declined(f"{heads} heads over {live} channels cost more than one product of {qk}")
    for match in found:
        _rewrite(sized.graph, match)
    return Applied(", ".join(f"{a.name}: {a.tokens.live} of {a.tokens.channels} channels live" for a in found))


def _match(sized: SizedGraph, node: ir.Node) -> GridQueries | None:
    query = projected_query(operand(node, 0)) if node.op_type == "MatMul" else None
    sizes_known = _heads_and_keys(node) if query is not None else None
    if query is None or sizes_known is None:
        return None
    tokens = find_tokens(sized, query.projection.x, {query.projection.product})
    return None if tokens is None else GridQueries(node, *sizes_known, query.projection, query.scale, tokens)


def _heads_and_keys(scores: ir.Node) -> tuple[int, int] | None:
    """Heads and keys of (B, heads, N, M), if both are fixed: keys are latents."""
    shape = scores.outputs[0].shape
    _, heads, _, keys = shape if shape is not None and len(shape) == 4 else (None, None, None, None)
    return (heads, keys) if isinstance(heads, int) and isinstance(keys, int) else None


def _rewrite(graph: ir.Graph, match: GridQueries) -> None:
    tokens, grid, heads = match.tokens, match.tokens.grid, match.heads
    build, keys = NodeBuilder(graph, match.name, match.scores), operand(match.scores, 1)
    measured = statistics(build, tokens)
    weight = match.query.by_head(heads) * match.scale  # (heads, C, E)
    centred = weight * tokens.scale[:, None]
    centred -= centred.mean(1, keepdims=True)

    bias = match.query.bias_by_head(heads) * match.scale + np.einsum("c,hce->he", tokens.bias, weight)
    by_channel = np.concatenate([centred[:, : tokens.live], bias[:, None]], axis=1)
    by_key = exempt(build("MatMul", per_head(by_channel), keys, name="content_keys"))
    flat = build("MatMul", with_deviation(build, tokens, measured), by_key, name="content_scores")
    scores = build("Reshape", flat, ints(0, heads, -1, grid.width, match.keys), name="content_scores")
    rows = select_rows(build, grid, per_head(grid.rows @ centred[:, tokens.live + grid.row_channels]), -2)
    by_row = exempt(build("MatMul", rows, keys, name="row_scores"))
    columns = per_head(grid.columns @ centred[:, tokens.live + grid.column_channels])
    by_column = exempt(build("MatMul", columns, keys, name="column_scores"))
    scores = build("Add", scores, build("Unsqueeze", by_row, ints(3), name="table"), name="with_row")
    scores = build("Add", scores, build("Unsqueeze", by_column, ints(2), name="table"), name="with_column")
    scores = build("Mul", scores, build("Unsqueeze", measured.rstd, ints(-1), name="rstd"), name="scaled_scores")
    replace(match.scores.outputs[0], build("Reshape", scores, ints(0, heads, -1, match.keys), name="scores"))


SEPARABLE_QUERIES = RewriteRule(
    "separable-queries",
    "attention whose queries have grid positions, factorised along the axes of the grid",
    apply,
    backends=("onnxruntime",),
)
