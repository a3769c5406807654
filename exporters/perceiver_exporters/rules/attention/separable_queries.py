"""Queries that are [content, grid positions] under LayerNorm, one per point of a grid.

The counterpart of `separable_positions`, whose keys and values have these positions.

The query projection is taken over to the keys, which are few: scores = rstd * (x G) + c with G = centre(g Wq) K^T. The
positions' part of x G is R[row, key] + C[column, key]. No softmax takes off c: it differs from key to key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import exempt, per_head
from perceiver_exporters.rules.matchers.attention import Projection, operand, projected_query
from perceiver_exporters.rules.matchers.grid_tokens import Tokens, asked_rows, beside_deviation, find_tokens, statistics
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class Asking:
    """Scores (B, heads, N, M) of scaled queries that are projected from grid tokens; the keys may be an input."""

    scores: ir.Node
    heads: int
    keys: int
    query: Projection
    scale: float
    tokens: Tokens

    @property
    def name(self) -> str:
        """Name of the module that attends."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Rewrite every attention that is asked by the points of a grid."""
    found = [asking for node in sized.graph if (asking := _asking(sized, node)) is not None]
    if not found:
        return Declined("no queries made of content beside positions of a grid under LayerNorm")
    shapes = static_shapes(sized.opt)
    for asking in found:
        _, heads, queries, keys = shapes[str(asking.scores.outputs[0].name)]
        channels, qk = asking.query.weight.shape
        grid, live = asking.tokens.grid, asking.tokens.live
        points = live + queries // grid.width + grid.width
        if points * qk * keys + queries * heads * live * keys >= queries * qk * (channels + keys):
            return Declined(f"{heads} heads over {live} channels cost more than one product of {qk}")
    for asking in found:
        _rewrite(sized.graph, asking)
    return Applied(", ".join(f"{a.name}: {a.tokens.live} of {a.tokens.channels} channels live" for a in found))


def _asking(sized: SizedGraph, node: ir.Node) -> Asking | None:
    query = projected_query(operand(node, 0)) if node.op_type == "MatMul" else None
    sizes_known = _heads_and_keys(node) if query is not None else None
    if query is None or sizes_known is None:
        return None
    tokens = find_tokens(sized, query.projection.x, {query.projection.product})
    return None if tokens is None else Asking(node, *sizes_known, query.projection, query.scale, tokens)


def _heads_and_keys(scores: ir.Node) -> tuple[int, int] | None:
    """Keys are latents, whose number is fixed."""
    shape = scores.outputs[0].shape
    _, heads, _, keys = shape if shape is not None and len(shape) == 4 else (None, None, None, None)
    return (heads, keys) if isinstance(heads, int) and isinstance(keys, int) else None


def _rewrite(graph: ir.Graph, asking: Asking) -> None:
    tokens, grid, heads = asking.tokens, asking.tokens.grid, asking.heads
    write, keys = Draft(graph, asking.name, asking.scores), operand(asking.scores, 1)
    measured = statistics(write, tokens)
    weight = asking.query.by_head(heads) * asking.scale  # (heads, C, E)
    asked = weight * tokens.scale[:, None]
    asked -= asked.mean(1, keepdims=True)

    bias = asking.query.bias_by_head(heads) * asking.scale + np.einsum("c,hce->he", tokens.bias, weight)
    by_channel = np.concatenate([asked[:, : tokens.live], bias[:, None]], axis=1)
    by_key = exempt(write("MatMul", per_head(by_channel), keys, name="asked"))
    flat = write("MatMul", beside_deviation(write, tokens, measured), by_key, name="content_scores")
    scores = write("Reshape", flat, ints(0, heads, -1, grid.width, asking.keys), name="content_scores")
    rows = asked_rows(write, grid, per_head(grid.rows @ asked[:, tokens.live + grid.row_channels]), -2)
    by_row = exempt(write("MatMul", rows, keys, name="row_scores"))
    columns = per_head(grid.columns @ asked[:, tokens.live + grid.column_channels])
    by_column = exempt(write("MatMul", columns, keys, name="column_scores"))
    scores = write("Add", scores, write("Unsqueeze", by_row, ints(3), name="table"), name="with_row")
    scores = write("Add", scores, write("Unsqueeze", by_column, ints(2), name="table"), name="with_column")
    scores = write("Mul", scores, write("Unsqueeze", measured.rstd, ints(-1), name="rstd"), name="scaled_scores")
    replace(asking.scores.outputs[0], write("Reshape", scores, ints(0, heads, -1, asking.keys), name="scores"))


SEPARABLE_QUERIES = RewriteRule(
    "separable-queries",
    "the positions' share of the queries of a grid from one table per axis, met by the keys",
    apply,
    backends=("onnxruntime",),
)
