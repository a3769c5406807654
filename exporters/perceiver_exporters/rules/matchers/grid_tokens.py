"""Matcher for normalised tokens [content | grid positions], and the nodes that compute their statistics.

Sum and sum of squares of a token are those of its content, its row's positions and its column's positions added up.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, Operand, ints
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer
from perceiver_exporters.rules.matchers.grid_positions import Grid, find_grid


@dataclass(frozen=True)
class Tokens:
    """Tokens [content | positions] (B, M, channels) and their LayerNorm; `live` is the number of content channels."""

    content: ir.Value
    channels: int
    live: int
    grid: Grid
    scale: Float64Array
    bias: Float64Array
    epsilon: float


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation (B, M, 1) of every token, and reciprocal deviation (B, 1, rows, width)."""

    mean: ir.Value
    deviation: ir.Value
    rstd: ir.Value


def find_tokens(sized: SizedGraph, normed: ir.Value, readers: Set[ir.Node]) -> Tokens | None:
    """The tokens behind a normalised value, if they are content and grid positions and only `readers` read it."""
    norm = producer(normed, "LayerNormalization")
    joined = producer(norm.inputs[0], "Concat") if norm else None
    if norm is None or joined is None or len(joined.inputs) != 2 or {node for node, _ in normed.uses()} != readers:
        return None
    content, positions = operand(joined, 0), operand(joined, 1)
    scale, bias = array_of(norm.inputs[1]), array_of(norm.inputs[2])
    grid = find_grid(sized, positions)
    if grid is None or scale is None or bias is None:
        return None
    live = len(scale) - len(grid.row_channels) - len(grid.column_channels)
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    return Tokens(content, len(scale), live, grid, scale.astype(np.float64), bias.astype(np.float64), epsilon)


def statistics(build: NodeBuilder, tokens: Tokens) -> Statistics:
    """Add nodes that compute the statistics of the tokens from those of content, rows and columns."""
    content, grid, share = tokens.content, tokens.grid, np.array(1 / tokens.channels)
    square = build("Mul", content, content, name="content_squared")
    mean = _token_mean(build, tokens, content, grid.rows.sum(1), grid.columns.sum(1), share)
    squares = _token_mean(build, tokens, square, (grid.rows**2).sum(1), (grid.columns**2).sum(1), share)
    variance = build("Sub", squares, build("Mul", mean, mean, name="mean_squared"), name="variance")
    deviation = build("Sqrt", build("Add", variance, np.array(tokens.epsilon), name="stable"), name="deviation")
    return Statistics(
        mean=build("Reshape", mean, ints(0, -1, 1), name="token_mean"),
        deviation=build("Reshape", deviation, ints(0, -1, 1), name="token_deviation"),
        rstd=build("Unsqueeze", build("Reciprocal", deviation, name="rstd"), ints(1), name="rstd"),
    )


def with_deviation(build: NodeBuilder, tokens: Tokens, measured: Statistics) -> ir.Value:
    """Content (B, 1, M, live + 1) with the deviation as an additional channel, which is one after scaling by `rstd`.

    A bias of the scaled scores thus becomes one more row of the weight instead of another elementwise pass.
    """
    wide = build("Concat", tokens.content, measured.deviation, axis=-1, name="content_deviation")
    return build("Unsqueeze", wide, ints(1), name="content")


def _token_mean(
    build: NodeBuilder,
    tokens: Tokens,
    content: ir.Value,
    rows: Float64Array,
    columns: Float64Array,
    share: Float64Array,
) -> ir.Value:
    """Mean over the channels of a token, (B, rows, width), from sums over content, row and column."""
    own = build("ReduceSum", content, ints(-1), keepdims=0, name="content_sum")
    grid = build("Reshape", own, ints(0, -1, tokens.grid.width), name="content_sum")
    by_row = build("Add", grid, select_rows(build, tokens.grid, rows[:, None], 0), name="with_row")
    whole = build("Add", by_row, columns, name="with_column")
    return build("Mul", whole, share, name="mean")


def select_rows(build: NodeBuilder, grid: Grid, table: Float64Array, axis: int) -> Operand:
    """The rows of a table, along `axis`, that the grid's index selects; all of them without an index."""
    return table if grid.index is None else build("Gather", table, grid.index, axis=axis, name="rows")
