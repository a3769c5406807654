"""Factorise attention to normalised tokens [content, grid positions] along the axes of the grid.

LayerNorm is linear up to one scale per token. With g and b its scale and bias, and the columns of A centred, so that
the token's mean cancels,

    scores = rstd * (x A^T),      A = centre((q Wk^T) g)

and the positions' part of x A^T is R[query, row] + C[query, column]: tables of N x (rows + width) instead of a product
of N x M x channels, M = rows * width. Weighted sums over tokens are factorised likewise: the weights are summed over
each row and each column of the grid, then multiplied by the position tables. Only content channels are multiplied per
token. If these sums together are narrower than the values, the output projection is folded into the tables.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, Operand, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import (
    exempt,
    per_head,
    projected_flops,
    queries_times,
    with_value_bias,
)
from perceiver_exporters.rules.matchers.attention import AttentionSite, attention_sites, biased
from perceiver_exporters.rules.matchers.attention_output import AttentionOutput, find_single_head_output
from perceiver_exporters.rules.matchers.grid_positions import Grid
from perceiver_exporters.rules.matchers.grid_tokens import (
    Statistics,
    Tokens,
    find_tokens,
    select_rows,
    statistics,
    with_deviation,
)
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict

MAX_TABLE_BYTES = 8 << 20
"""Largest table of the positions' part of all scores: what fits into a processor's cache."""


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Factorise all attention to tokens with grid positions."""
    found = [(site, tokens) for site in attention_sites(sized.graph) if (tokens := _tokens(sized, site)) is not None]
    if not found:
        return Declined("no attention reads normalised tokens of content and grid positions")
    shapes = static_shapes(sized.opt)
    for site, tokens in found:
        as_it_is, _ = projected_flops(site, shapes)
        batch, heads, queries, keys = shapes[str(site.scores.outputs[0].name)]
        if 4 * batch * heads * queries * keys * (tokens.live + 1) >= as_it_is:
            return Declined(f"{heads} heads of {queries} queries over {tokens.live} channels cost more than they save")
    return Applied(", ".join(_rewrite(sized.graph, site, tokens, context) for site, tokens in found))


def _tokens(sized: SizedGraph, site: AttentionSite) -> Tokens | None:
    return find_tokens(sized, site.x, {site.key.product, site.value.product})


def _worth_folding(site: AttentionSite, tokens: Tokens, context: Context) -> AttentionOutput | None:
    """The output projection of a single head, if folding it takes fewer FLOPs; INT8 quantises it instead."""
    ending = None if context.integers else find_single_head_output(site.weighted)
    if ending is None:
        return None
    grid, (values, width) = tokens.grid, ending.output.weight.shape

    def parts(into: int) -> int:
        """Multiplications per query that the sums take, for a result of width `into`."""
        columns, channels = grid.columns.shape
        by_column = columns * into if _at_once(into, grid.columns.T) else channels * (columns + into)
        return int((tokens.live + 1 + len(grid.rows)) * into + by_column)

    return ending if parts(width) < parts(values) + values * width else None


def _rewrite(graph: ir.Graph, site: AttentionSite, tokens: Tokens, context: Context) -> str:
    """Rewrite one attention and return a description."""
    ending = _worth_folding(site, tokens, context)
    before = NodeBuilder(graph, site.name, site.scores)
    measured = statistics(before, tokens)
    replace(site.scores.outputs[0], _scores(before, site, tokens, measured))
    after = NodeBuilder(graph, site.name, site.weighted)
    attended, bias = _attended(after, site if ending is None else _with_output(site, ending), tokens, measured)
    if ending is None:
        replace(site.weighted.outputs[0], with_value_bias(after, site, attended, bias))
    else:
        merged = after("Squeeze", attended, ints(1), name="merged")
        replace(biased(ending.output.product), after("Add", merged, bias[0] + ending.output.bias, name="output_bias"))
    folded = "" if ending is None else ", output projection folded"
    return f"{site.name}: {tokens.live} of {tokens.channels} channels live{folded}"


def _with_output(site: AttentionSite, ending: AttentionOutput) -> AttentionSite:
    """The site with the output projection folded into its values."""
    matrix = ending.output.weight.astype(np.float64)
    value = dataclasses.replace(
        site.value,
        weight=site.value.weight.astype(np.float64) @ matrix,
        bias=site.value.bias.astype(np.float64) @ matrix,
    )
    return dataclasses.replace(site, value=value)


def _scores(build: NodeBuilder, site: AttentionSite, tokens: Tokens, measured: Statistics) -> ir.Value:
    """Scores (B, heads, N, M) from the content's product and the two tables."""
    grid, heads, live = tokens.grid, site.heads, tokens.live
    keys = site.key.by_head(heads)  # (heads, C, E)
    centred = keys * tokens.scale[:, None]
    centred = (centred - centred.mean(1, keepdims=True)).transpose(0, 2, 1)  # (heads, E, C)
    bias = site.key.bias_by_head(heads) + np.einsum("c,hce->he", tokens.bias, keys)
    if site.softmax or not bias.any():  # softmax is invariant to it
        content, by_channel = build("Unsqueeze", tokens.content, ints(1), name="content"), centred[..., :live]
    else:
        content = with_deviation(build, tokens, measured)
        by_channel = np.concatenate([centred[..., :live], bias[..., None]], axis=-1)
    transposed = build("Transpose", content, perm=[0, 1, 3, 2], name="content_by_channel")
    flat = build("MatMul", queries_times(build, site, by_channel, "content_queries"), transposed, name="content_scores")
    scores = build("Reshape", flat, ints(0, 0, 0, -1, grid.width), name="content_scores")
    row = _row_table(build, site, grid, centred[..., live + grid.row_channels] @ grid.rows.T)
    column = _column_table(build, site, centred[..., live + grid.column_channels], grid.columns.T)
    scores = _with_positions(build, scores, row, column)
    scaled = build("Mul", scores, build("Unsqueeze", measured.rstd, ints(1), name="rstd"), name="scaled_scores")
    return build("Reshape", scaled, ints(0, 0, 0, -1), name="scores")


def _with_positions(build: NodeBuilder, scores: ir.Value, row: Operand, column: Operand) -> ir.Value:
    """Scores plus both tables, added as one table if that is a small constant: one pass over the scores, not two."""
    if isinstance(row, np.ndarray) and isinstance(column, np.ndarray):
        table = np.asarray(row, np.float64) + np.asarray(column, np.float64)
        if table.size * 4 <= MAX_TABLE_BYTES:
            return build("Add", scores, table, name="with_positions")
    return build("Add", build("Add", scores, row, name="with_row"), column, name="with_column")


def _row_table(build: NodeBuilder, site: AttentionSite, grid: Grid, matrix: Float64Array) -> Operand:
    """The rows' part of the scores, (., heads, N, rows, 1), from a matrix (heads, E, rows)."""
    if grid.index is None:
        table = queries_times(build, site, matrix, "row_scores")
    elif site.query.is_initializer():
        table = build(
            "Gather", np.asarray(queries_times(build, site, matrix, "")), grid.index, axis=3, name="row_scores"
        )
    else:
        rows = build("Gather", per_head(matrix), grid.index, axis=-1, name="rows")
        table = build("MatMul", site.query, rows, name="row_scores")
    return _expand_dims(build, table, -1)


def _column_table(build: NodeBuilder, site: AttentionSite, centred: Float64Array, columns: Float64Array) -> Operand:
    """The columns' part of the scores, (., heads, N, 1, width)."""
    if site.query.is_initializer() or _at_once(centred.shape[1], columns):
        return _expand_dims(build, queries_times(build, site, centred @ columns, "column_scores"), -2)
    narrow = queries_times(build, site, centred, "column_queries")
    return _expand_dims(build, exempt(build("MatMul", narrow, columns, name="column_scores")), -2)


def _at_once(other: int, table: Float64Array) -> bool:
    """Whether one product with (other, X) @ (X, Y), folded, takes no more multiplications than two products."""
    channels, points = table.shape
    return bool(other * points <= channels * (other + points))


def _expand_dims(build: NodeBuilder, table: Operand, axis: int) -> Operand:
    if isinstance(table, ir.Value):
        return build("Unsqueeze", table, ints(axis), name="table")
    return np.expand_dims(table, axis)


def _attended(
    build: NodeBuilder, site: AttentionSite, tokens: Tokens, measured: Statistics
) -> tuple[ir.Value, Float64Array]:
    """Attended values (B, heads, N, F) from weighted sums of content, rows and columns, and their bias (heads, F)."""
    grid, heads, live = tokens.grid, site.heads, tokens.live
    values = site.value.by_head(heads)
    scaled = tokens.scale[:, None] * values  # (heads, C, F)
    weights = build("Reshape", site.weights, ints(0, 0, 0, -1, grid.width), name="weights")
    weights = build("Mul", weights, build("Unsqueeze", measured.rstd, ints(1), name="rstd"), name="scaled_weights")
    flat = build("Reshape", weights, ints(0, 0, 0, -1), name="scaled_weights")
    content = build("Unsqueeze", build("Concat", tokens.content, measured.mean, axis=-1, name="content_mean"), ints(1))
    sums = build("MatMul", flat, content, name="content_sums")
    by_row = build("ReduceSum", weights, ints(-1), keepdims=0, name="row_sums")
    by_column = build("ReduceSum", weights, ints(-2), keepdims=0, name="column_sums")
    own = np.concatenate([scaled[:, :live], -scaled.sum(1, keepdims=True)], axis=1)
    row, column = grid.rows @ scaled[:, live + grid.row_channels], scaled[:, live + grid.column_channels]
    bias = site.value.bias_by_head(heads) + np.einsum("c,hcf->hf", tokens.bias, values)
    if grid.index is None and _at_once(column.shape[-1], grid.columns.T):
        matrix = np.concatenate([own, row, grid.columns @ column], axis=1)
        all_sums = build("Concat", sums, by_row, by_column, axis=-1, name="sums")
        return exempt(build("MatMul", all_sums, per_head(matrix), name="values")), bias
    content_values = exempt(build("MatMul", sums, per_head(own), name="content_values"))
    row_values = exempt(build("MatMul", by_row, select_rows(build, grid, per_head(row), -2), name="row_values"))
    column_values = _column_values(build, by_column, grid.columns, column)
    attended = build("Add", content_values, row_values, name="with_row")
    return build("Add", attended, column_values, name="with_column"), bias


def _column_values(build: NodeBuilder, sums: ir.Value, columns: Float64Array, matrix: Float64Array) -> ir.Value:
    """Sums per column (B, heads, N, width) @ column table (width, channels) @ matrix (heads, channels, F)."""
    if _at_once(matrix.shape[-1], columns.T):
        return exempt(build("MatMul", sums, per_head(columns @ matrix), name="column_values"))
    narrow = exempt(build("MatMul", sums, columns, name="column_channels"))
    return exempt(build("MatMul", narrow, per_head(matrix), name="column_values"))


SEPARABLE_POSITIONS = RewriteRule(
    "separable-positions",
    "attention to normalised tokens with grid positions, factorised along the axes of the grid",
    apply,
    backends=("onnxruntime",),
)
