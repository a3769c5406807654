"""Tokens of content beside grid positions, under LayerNorm: what they are made of, and their statistics.

Mean and variance of a token are those of its content, of its row and of its column, added up.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, Exact, Operand, ints
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer
from perceiver_exporters.rules.matchers.grid_positions import Grid, find_grid


@dataclass(frozen=True)
class Tokens:
    """Tokens [content | positions] (B, M, channels) and their normalisation; `scale` and `bias` in FP64."""

    content: ir.Value
    channels: int
    live: int
    grid: Grid
    scale: Exact
    bias: Exact
    epsilon: float


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation (B, M, 1) of every token, and one over the deviation (B, 1, rows, width)."""

    mean: ir.Value
    deviation: ir.Value
    rstd: ir.Value


def find_tokens(sized: SizedGraph, normed: ir.Value, readers: Set[ir.Node]) -> Tokens | None:
    """What normalised tokens are made of, if it is content beside a grid and nobody but `readers` reads them."""
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


def statistics(write: Draft, tokens: Tokens) -> Statistics:
    """Of the tokens, from those of their parts."""
    content, grid, share = tokens.content, tokens.grid, np.array(1 / tokens.channels)
    square = write("Mul", content, content, name="content_squared")
    mean = _token_mean(write, tokens, content, grid.rows.sum(1), grid.columns.sum(1), share)
    squares = _token_mean(write, tokens, square, (grid.rows**2).sum(1), (grid.columns**2).sum(1), share)
    variance = write("Sub", squares, write("Mul", mean, mean, name="mean_squared"), name="variance")
    deviation = write("Sqrt", write("Add", variance, np.array(tokens.epsilon), name="stable"), name="deviation")
    return Statistics(
        mean=write("Reshape", mean, ints(0, -1, 1), name="token_mean"),
        deviation=write("Reshape", deviation, ints(0, -1, 1), name="token_deviation"),
        rstd=write("Unsqueeze", write("Reciprocal", deviation, name="rstd"), ints(1), name="rstd"),
    )


def beside_deviation(write: Draft, tokens: Tokens, measured: Statistics) -> ir.Value:
    """Content (B, 1, M, live + 1) with the deviation as one more channel: times rstd, that channel is one.

    What is to be added to the scores after they are scaled rides along in the product, and saves a pass over them.
    """
    wide = write("Concat", tokens.content, measured.deviation, axis=-1, name="content_deviation")
    return write("Unsqueeze", wide, ints(1), name="content")


def _token_mean(write: Draft, tokens: Tokens, content: ir.Value, rows: Exact, columns: Exact, share: Exact) -> ir.Value:
    """Mean over all channels of a token, (B, rows, width), from sums over its content, row and column."""
    own = write("ReduceSum", content, ints(-1), keepdims=0, name="content_sum")
    grid = write("Reshape", own, ints(0, -1, tokens.grid.width), name="content_sum")
    by_row = write("Add", grid, asked_rows(write, tokens.grid, rows[:, None], 0), name="with_row")
    whole = write("Add", by_row, columns, name="with_column")
    return write("Mul", whole, share, name="mean")


def asked_rows(write: Draft, grid: Grid, table: Exact, axis: int) -> Operand:
    """The rows that the graph asks for, of a table that has them all along `axis`."""
    return table if grid.index is None else write("Gather", table, grid.index, axis=axis, name="rows")
