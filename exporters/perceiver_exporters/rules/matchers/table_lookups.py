"""Rows put together, channel by channel, from tables that are looked up (positions per axis) and from constants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Exact
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer


@dataclass(frozen=True)
class Lookup:
    """A table (R, C) of which `index` (N, 1) names the rows."""

    index: ir.Value
    table: Exact


@dataclass(frozen=True)
class Rows:
    """Rows (N, C) that are the sum of one row from each lookup's table, which are zero where another has channels.

    Channels that are the same in every row are in the first table.
    """

    lookups: tuple[Lookup, ...]


@dataclass(frozen=True)
class NormedRows:
    """What `norm` makes of rows to which `headed` added an axis, (1, N, C); its scale and bias are constants."""

    norm: ir.Node
    headed: ir.Node
    rows: Rows


@dataclass(frozen=True)
class _Piece:
    """Some neighbouring channels: those that `gather` takes from a table (R, width), or (1, width) for all rows."""

    gather: ir.Node | None
    columns: Exact


def find_normed_rows(value: ir.Value) -> NormedRows | None:
    """The looked up rows that a value (1, N, C) normalises, if that is all that it does."""
    norm = producer(value, "LayerNormalization")
    headed = producer(norm.inputs[0], "Unsqueeze") if norm else None
    axes = array_of(headed.inputs[1]) if headed else None
    if norm is None or headed is None or axes is None or axes.tolist() != [0]:
        return None
    rows = find_rows(headed.inputs[0])
    constant = len(norm.inputs) == 3 and all(array_of(value) is not None for value in norm.inputs[1:])
    last = norm.attributes.get_int("axis", -1) in (-1, 2)
    return NormedRows(norm, headed, rows) if rows is not None and constant and last else None


def find_rows(value: ir.Value | None) -> Rows | None:
    """The lookups that a value (N, C) is made of, if it is made of nothing else."""
    pieces = _pieces(value)
    if pieces is None or not any(piece.gather for piece in pieces):
        return None
    channels = sum(piece.columns.shape[1] for piece in pieces)
    tables: dict[ir.Node | None, Exact] = {}
    start = 0
    for piece in pieces:
        rows, width = piece.columns.shape
        tables.setdefault(piece.gather, np.zeros((rows, channels)))[:, start : start + width] = piece.columns
        start += width
    everywhere = tables.pop(None, np.zeros((1, channels)))
    lookups = [Lookup(operand(gather, 1), table) for gather, table in tables.items() if gather is not None]
    return Rows((replace(lookups[0], table=lookups[0].table + everywhere), *lookups[1:]))


def _pieces(value: ir.Value | None) -> list[_Piece] | None:
    """Left to right; None if a channel is anything else."""
    node = value.producer() if value is not None else None
    reader = _READERS.get(node.op_type) if node is not None and not node.domain else None
    return reader(node) if reader is not None and node is not None else None


def _concatenated(node: ir.Node) -> list[_Piece] | None:
    if node.attributes.get_int("axis", 0) not in (-1, 1):
        return None
    parts = [_pieces(value) for value in node.inputs]
    return None if any(part is None for part in parts) else [piece for part in parts for piece in part or ()]


def _sliced(node: ir.Node) -> list[_Piece] | None:
    """Some channels of one lookup; slices that step, or take rows, are left alone."""
    whole = _pieces(node.inputs[0])
    given = [array_of(value) for value in node.inputs[1:]]
    if whole is None or len(whole) != 1 or len(given) < 3:
        return None
    start, end, axis, *step = (a.item() if a is not None and a.size == 1 else None for a in given)
    if None in (start, end) or axis not in (-1, 1) or step not in ([], [1]):
        return None
    return [replace(whole[0], columns=whole[0].columns[:, start:end])]


def _gathered(node: ir.Node) -> list[_Piece] | None:
    table, index = array_of(node.inputs[0]), operand(node, 1)
    flat = index.shape is not None and len(index.shape) == 2 and index.shape[1] == 1
    if table is None or table.ndim != 2 or not flat or node.attributes.get_int("batch_dims", 0) != 0:
        return None
    return [_Piece(node, table.astype(np.float64))]


def _spread(node: ir.Node) -> list[_Piece] | None:
    row = array_of(node.inputs[0])
    if row is None or not np.issubdtype(row.dtype, np.floating) or row.ndim not in (1, 2) or row.size != row.shape[-1]:
        return None
    shape = node.outputs[0].shape
    same = shape is not None and len(shape) == 2 and shape[1] == row.size
    return [_Piece(None, row.astype(np.float64).reshape(1, -1))] if same else None


_READERS = {"Concat": _concatenated, "Slice": _sliced, "GatherND": _gathered, "Expand": _spread}
