"""Matcher for rows whose channels are looked up in tables (positions per axis) or constant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer


@dataclass(frozen=True)
class Lookup:
    """A table (R, C) whose rows `index` (N, 1) selects."""

    index: ir.Value
    table: Float64Array


@dataclass(frozen=True)
class Rows:
    """Rows (N, C): the sum of one row of each lookup's table, which is zero in the channels of other tables.

    Channels that are constant over all rows are part of the first table.
    """

    lookups: tuple[Lookup, ...]


@dataclass(frozen=True)
class NormedRows:
    """LayerNormalization `norm`, scale and bias constant, of rows to which Unsqueeze `headed` adds a batch axis."""

    norm: ir.Node
    headed: ir.Node
    rows: Rows


@dataclass(frozen=True)
class _Channels:
    """Adjacent channels: looked up by `gather` in a table (R, width), or constant (1, width) without it."""

    gather: ir.Node | None
    columns: Float64Array


def find_normed_rows(value: ir.Value) -> NormedRows | None:
    """The looked-up rows that a value (1, N, C) is the normalisation of, or None."""
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
    """The lookups that a value (N, C) consists of, or None if it depends on anything else."""
    parts = _channels(value)
    if parts is None or not any(part.gather for part in parts):
        return None
    channels = sum(part.columns.shape[1] for part in parts)
    tables: dict[ir.Node | None, Float64Array] = {}
    start = 0
    for part in parts:
        rows, width = part.columns.shape
        tables.setdefault(part.gather, np.zeros((rows, channels)))[:, start : start + width] = part.columns
        start += width
    everywhere = tables.pop(None, np.zeros((1, channels)))
    lookups = [Lookup(operand(gather, 1), table) for gather, table in tables.items() if gather is not None]
    return Rows((replace(lookups[0], table=lookups[0].table + everywhere), *lookups[1:]))


def _channels(value: ir.Value | None) -> list[_Channels] | None:
    """The channels from left to right, or None if any is neither looked up nor constant."""
    node = value.producer() if value is not None else None
    reader = _READERS.get(node.op_type) if node is not None and not node.domain else None
    return reader(node) if reader is not None and node is not None else None


def _concatenated(node: ir.Node) -> list[_Channels] | None:
    if node.attributes.get_int("axis", 0) not in (-1, 1):
        return None
    parts = [_channels(value) for value in node.inputs]
    return None if any(part is None for part in parts) else [each for part in parts for each in part or ()]


def _sliced(node: ir.Node) -> list[_Channels] | None:
    """Channels of one lookup; slices with a step or along rows are not supported."""
    whole = _channels(node.inputs[0])
    given = [array_of(value) for value in node.inputs[1:]]
    if whole is None or len(whole) != 1 or len(given) < 3:
        return None
    start, end, axis, *step = (a.item() if a is not None and a.size == 1 else None for a in given)
    if None in (start, end) or axis not in (-1, 1) or step not in ([], [1]):
        return None
    return [replace(whole[0], columns=whole[0].columns[:, start:end])]


def _gathered(node: ir.Node) -> list[_Channels] | None:
    table, index = array_of(node.inputs[0]), operand(node, 1)
    flat = index.shape is not None and len(index.shape) == 2 and index.shape[1] == 1
    if table is None or table.ndim != 2 or not flat or node.attributes.get_int("batch_dims", 0) != 0:
        return None
    return [_Channels(node, table.astype(np.float64))]


def _spread(node: ir.Node) -> list[_Channels] | None:
    row = array_of(node.inputs[0])
    if row is None or not np.issubdtype(row.dtype, np.floating) or row.ndim not in (1, 2) or row.size != row.shape[-1]:
        return None
    shape = node.outputs[0].shape
    same = shape is not None and len(shape) == 2 and shape[1] == row.size
    return [_Channels(None, row.astype(np.float64).reshape(1, -1))] if same else None


_READERS = {"Concat": _concatenated, "Slice": _sliced, "GatherND": _gathered, "Expand": _spread}
