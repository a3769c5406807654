"""Attention to [content, grid positions] under LayerNorm: the positions' share of all scores from two small tables.

LayerNorm is linear up to one scale per token: with g and b its scale and bias, and the columns of A centred so that
they do not see a token's mean,

    scores = rstd * (x A^T),      A = centre((q Wk^T) g)

and of x A^T, the positions' part is R[query, row] + C[query, column]: tables of N x (rows + width) in the place of a
product of N x M x channels, M = rows * width. The sums over tokens go the same way back: those over each row and each
column of the grid meet the two position tables afterwards. Only the content's channels are multiplied token by token.
Where all these sums together are narrower than the values, the output projection is folded into what they meet.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, Exact, Operand, ints, replace
from perceiver_exporters.ir.sized import SizedGraph, static_shapes
from perceiver_exporters.rules.attention.absorption import (
    exempt,
    per_head,
    projected_flops,
    queries_times,
    with_value_bias,
)
from perceiver_exporters.rules.matchers.attention import Site, biased, sites
from perceiver_exporters.rules.matchers.attention_output import Ending, find_ending
from perceiver_exporters.rules.matchers.grid_positions import Grid
from perceiver_exporters.rules.matchers.grid_tokens import (
    Statistics,
    Tokens,
    asked_rows,
    beside_deviation,
    find_tokens,
    statistics,
)
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict

MOST_BYTES = 8 << 20
"""Of a table with the positions' share of every score: what a processor's cache holds."""


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Rewrite every attention to tokens whose positions lie on a grid."""
    found = [(site, tokens) for site in sites(sized.graph) if (tokens := _tokens(sized, site)) is not None]
    if not found:
        return Declined("no attention reads content beside positions of a grid under LayerNorm")
    shapes = static_shapes(sized.opt)
    for site, tokens in found:
        as_it_is, _ = projected_flops(site, shapes)
        batch, heads, queries, keys = shapes[str(site.scores.outputs[0].name)]
        if 4 * batch * heads * queries * keys * (tokens.live + 1) >= as_it_is:
            return Declined(f"{heads} heads of {queries} queries over {tokens.live} channels cost more than they save")
    return Applied(", ".join(_rewrite(sized.graph, site, tokens, context) for site, tokens in found))


def _tokens(sized: SizedGraph, site: Site) -> Tokens | None:
    return find_tokens(sized, site.x, {site.key.product, site.value.product})


def _worth_folding(site: Site, tokens: Tokens, context: Context) -> Ending | None:
    """The output projection behind one head, where the parts are narrower than the values; INT8 has it in integers."""
    ending = None if context.integers else find_ending(site.weighted)
    if ending is None:
        return None
    grid, (values, width) = tokens.grid, ending.output.weight.shape

    def parts(into: int) -> int:
        """Products per query of what becomes of the sums."""
        columns, channels = grid.columns.shape
        by_column = columns * into if _at_once(into, grid.columns.T) else channels * (columns + into)
        return int((tokens.live + 1 + len(grid.rows)) * into + by_column)

    return ending if parts(width) < parts(values) + values * width else None


def _rewrite(graph: ir.Graph, site: Site, tokens: Tokens, context: Context) -> str:
    """Returns what was done."""
    ending = _worth_folding(site, tokens, context)
    before = Draft(graph, site.name, site.scores)
    measured = statistics(before, tokens)
    replace(site.scores.outputs[0], _scores(before, site, tokens, measured))
    after = Draft(graph, site.name, site.weighted)
    attended, bias = _attended(after, site if ending is None else _with_output(site, ending), tokens, measured)
    if ending is None:
        replace(site.weighted.outputs[0], with_value_bias(after, site, attended, bias))
    else:
        merged = after("Squeeze", attended, ints(1), name="merged")
        replace(biased(ending.output.product), after("Add", merged, bias[0] + ending.output.bias, name="output_bias"))
    folded = "" if ending is None else ", output projection folded"
    return f"{site.name}: {tokens.live} of {tokens.channels} channels live{folded}"


def _with_output(site: Site, ending: Ending) -> Site:
    """Values that are projected by the output projection at once."""
    matrix = ending.output.weight.astype(np.float64)
    value = dataclasses.replace(
        site.value,
        weight=site.value.weight.astype(np.float64) @ matrix,
        bias=site.value.bias.astype(np.float64) @ matrix,
    )
    return dataclasses.replace(site, value=value)


def _scores(write: Draft, site: Site, tokens: Tokens, measured: Statistics) -> ir.Value:
    """(B, heads, N, M) from the content's product and the two tables."""
    grid, heads, live = tokens.grid, site.heads, tokens.live
    keys = site.key.by_head(heads)  # (heads, C, E)
    asked = keys * tokens.scale[:, None]
    asked = (asked - asked.mean(1, keepdims=True)).transpose(0, 2, 1)  # (heads, E, C)
    bias = site.key.bias_by_head(heads) + np.einsum("c,hce->he", tokens.bias, keys)
    if site.softmax or not bias.any():  # a softmax does not see it
        content, by_channel = write("Unsqueeze", tokens.content, ints(1), name="content"), asked[..., :live]
    else:
        content = beside_deviation(write, tokens, measured)
        by_channel = np.concatenate([asked[..., :live], bias[..., None]], axis=-1)
    transposed = write("Transpose", content, perm=[0, 1, 3, 2], name="content_by_channel")
    flat = write("MatMul", queries_times(write, site, by_channel, "asked"), transposed, name="content_scores")
    scores = write("Reshape", flat, ints(0, 0, 0, -1, grid.width), name="content_scores")
    row = _row_table(write, site, grid, asked[..., live + grid.row_channels] @ grid.rows.T)
    column = _column_table(write, site, asked[..., live + grid.column_channels], grid.columns.T)
    scores = _with_positions(write, scores, row, column)
    scaled = write("Mul", scores, write("Unsqueeze", measured.rstd, ints(1), name="rstd"), name="scaled_scores")
    return write("Reshape", scaled, ints(0, 0, 0, -1), name="scores")


def _with_positions(write: Draft, scores: ir.Value, row: Operand, column: Operand) -> ir.Value:
    """Scores with both tables added: as one table, where that is a small constant, which saves a pass over them."""
    if isinstance(row, np.ndarray) and isinstance(column, np.ndarray):
        table = np.asarray(row, np.float64) + np.asarray(column, np.float64)
        if table.size * 4 <= MOST_BYTES:
            return write("Add", scores, table, name="with_positions")
    return write("Add", write("Add", scores, row, name="with_row"), column, name="with_column")


def _row_table(write: Draft, site: Site, grid: Grid, matrix: Exact) -> Operand:
    """What a token's row adds to its score, (., heads, N, rows, 1), from (heads, E, rows)."""
    if grid.index is None:
        table = queries_times(write, site, matrix, "row_scores")
    elif site.query.is_initializer():
        table = write(
            "Gather", np.asarray(queries_times(write, site, matrix, "")), grid.index, axis=3, name="row_scores"
        )
    else:
        asked = write("Gather", per_head(matrix), grid.index, axis=-1, name="asked_rows")
        table = write("MatMul", site.query, asked, name="row_scores")
    return _expand_dims(write, table, -1)


def _column_table(write: Draft, site: Site, asked: Exact, columns: Exact) -> Operand:
    """What a token's column adds to its score, (., heads, N, 1, width)."""
    if site.query.is_initializer() or _at_once(asked.shape[1], columns):
        return _expand_dims(write, queries_times(write, site, asked @ columns, "column_scores"), -2)
    narrow = queries_times(write, site, asked, "asked_columns")
    return _expand_dims(write, exempt(write("MatMul", narrow, columns, name="column_scores")), -2)


def _at_once(other: int, table: Exact) -> bool:
    """Whether a product with a matrix (X, other) folded through the table (X, Y) costs no more than two products."""
    channels, points = table.shape
    return bool(other * points <= channels * (other + points))


def _expand_dims(write: Draft, table: Operand, axis: int) -> Operand:
    if isinstance(table, ir.Value):
        return write("Unsqueeze", table, ints(axis), name="table")
    return np.expand_dims(table, axis)


def _attended(write: Draft, site: Site, tokens: Tokens, measured: Statistics) -> tuple[ir.Value, Exact]:
    """Weighted values (B, heads, N, F) without their bias, and the bias (heads, F).

    They come from weighted sums of the content, of rows and of columns.
    """
    grid, heads, live = tokens.grid, site.heads, tokens.live
    values = site.value.by_head(heads)
    scaled = tokens.scale[:, None] * values  # (heads, C, F)
    weights = write("Reshape", site.weights, ints(0, 0, 0, -1, grid.width), name="weights")
    weights = write("Mul", weights, write("Unsqueeze", measured.rstd, ints(1), name="rstd"), name="scaled_weights")
    flat = write("Reshape", weights, ints(0, 0, 0, -1), name="scaled_weights")
    content = write("Unsqueeze", write("Concat", tokens.content, measured.mean, axis=-1, name="content_mean"), ints(1))
    sums = write("MatMul", flat, content, name="content_sums")
    by_row = write("ReduceSum", weights, ints(-1), keepdims=0, name="row_sums")
    by_column = write("ReduceSum", weights, ints(-2), keepdims=0, name="column_sums")
    own = np.concatenate([scaled[:, :live], -scaled.sum(1, keepdims=True)], axis=1)
    row, column = grid.rows @ scaled[:, live + grid.row_channels], scaled[:, live + grid.column_channels]
    bias = site.value.bias_by_head(heads) + np.einsum("c,hcf->hf", tokens.bias, values)
    if grid.index is None and _at_once(column.shape[-1], grid.columns.T):
        matrix = np.concatenate([own, row, grid.columns @ column], axis=1)
        all_sums = write("Concat", sums, by_row, by_column, axis=-1, name="sums")
        return exempt(write("MatMul", all_sums, per_head(matrix), name="values")), bias
    content_values = exempt(write("MatMul", sums, per_head(own), name="content_values"))
    row_values = exempt(write("MatMul", by_row, asked_rows(write, grid, per_head(row), -2), name="row_values"))
    column_values = _column_values(write, by_column, grid.columns, column)
    attended = write("Add", content_values, row_values, name="with_row")
    return write("Add", attended, column_values, name="with_column"), bias


def _column_values(write: Draft, sums: ir.Value, columns: Exact, matrix: Exact) -> ir.Value:
    """Sums over each column (B, heads, N, width) times the columns' table and (heads, channels, F)."""
    if _at_once(matrix.shape[-1], columns.T):
        return exempt(write("MatMul", sums, per_head(columns @ matrix), name="column_values"))
    narrow = exempt(write("MatMul", sums, columns, name="column_channels"))
    return exempt(write("MatMul", narrow, per_head(matrix), name="column_values"))


SEPARABLE_POSITIONS = RewriteRule(
    "separable-positions",
    "the positions' share of attention under LayerNorm from one table per axis of the grid",
    apply,
    backends=("onnxruntime",),
)
