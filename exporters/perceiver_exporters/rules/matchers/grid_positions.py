"""Matcher for position encodings of a grid, by value: the subgraph is evaluated, whatever its operators.

Each channel of a grid's position encoding varies along one axis only. Over (rows, width) points the encoding therefore
is two small tables: one with an entry per row, one with an entry per column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from perceiver_exporters.ir.builder import Float64Array
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, producer
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Grid:
    """Positions (rows * width, channels) of a grid, row major, as two tables in FP64.

    `rows` (rows, R) holds the channels `row_channels`, `columns` (width, channels - R) the channels `column_channels`.
    `index` is the graph input that selects rows, if there is one.
    """

    rows: Float64Array
    columns: Float64Array
    row_channels: npt.NDArray[np.int64]
    column_channels: npt.NDArray[np.int64]
    index: ir.Value | None

    @property
    def width(self) -> int:
        """Points per row."""
        return len(self.columns)


def find_grid(sized: SizedGraph, value: ir.Value) -> Grid | None:
    """The grid that a value (B, M, channels) expands over the batch, or None."""
    spread = producer(value, "Expand")
    source = spread.inputs[0] if spread is not None else None
    if source is None or source.shape is None or len(source.shape) != 2:
        return None
    inputs = _inputs(source)
    if not inputs:
        return _constant_grid(_evaluated(sized.model, source))
    index = inputs.pop() if len(inputs) == 1 else None
    return _indexed_grid(sized, source, index) if index is not None and _is_list(index) else None


def split_by_axis(table: Array, width: int, index: ir.Value | None = None) -> Grid | None:
    """Split the channels of a table by the axis along which they vary.

    Args:
        table: Positions (rows * width, channels), row major.
        width: Points per row.
        index: Graph input that selects rows, if there is one.

    Returns:
        The two tables, or None if a channel varies along both axes. Constant channels belong to the rows.
    """
    grid = table.astype(np.float64).reshape(-1, width, table.shape[1])
    by_row = (grid == grid[:, :1]).all((0, 1))
    by_column = (grid == grid[:1]).all((0, 1))
    if not (by_row | by_column).all():
        return None
    row, column = np.flatnonzero(by_row), np.flatnonzero(~by_row)
    return Grid(grid[:, 0, row], grid[0][:, column], row, column, index)


def _constant_grid(table: Array) -> Grid | None:
    """The width is the longest constant run at the start of a channel for which the table splits."""
    changes = (np.diff(table, axis=0) != 0).T
    runs = {int(np.argmax(channel)) + 1 for channel in changes if channel.any()}
    widths = (width for width in sorted(runs, reverse=True) if len(table) % width == 0 and width > 1)
    return next((grid for width in widths if (grid := split_by_axis(table, width)) is not None), None)


def _inputs(value: ir.Value) -> set[ir.Value]:
    """Graph inputs that a value depends on."""
    seen, queue, inputs = set(), [value], set()
    while queue:
        current = queue.pop()
        node = current.producer()
        if current.is_graph_input():
            inputs.add(current)
        elif node is not None and node not in seen:
            seen.add(node)
            queue += [v for v in node.inputs if v is not None]
    return inputs


def _is_list(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.INT64 and value.shape is not None and len(value.shape) == 1


def _indexed_grid(sized: SizedGraph, value: ir.Value, index: ir.Value) -> Grid | None:
    """A grid whose rows an input selects: rows selected alone and in reverse must equal those of the whole grid."""
    assert index.shape is not None  # it is a list
    total = sized.profile.dimensions[str(index.shape[0])].max
    evaluator = _evaluator(sized.model, value, index)

    def rows(*wanted: int) -> Array:
        (made,) = evaluator.run(None, {str(index.name): np.array(wanted, np.int64)})
        return np.asarray(made)

    whole = rows(*range(total))
    width, rest = divmod(len(whole), total)
    if rest:
        return None
    by_row = whole.reshape(total, width, -1)
    for wanted in [(total - 1,), tuple(reversed(range(total)))]:
        if not np.array_equal(rows(*wanted).reshape(len(wanted), width, -1), by_row[list(wanted)]):
            return None
    return split_by_axis(whole, width, index)


def _evaluated(model: ir.Model, value: ir.Value) -> Array:
    """A value that depends on no input: an initializer, or the result of a subgraph that was too large to fold."""
    constant = array_of(value)
    if constant is not None:
        return constant
    (made,) = _evaluator(model, value).run(None, {})
    return np.asarray(made)


def _evaluator(model: ir.Model, value: ir.Value, *inputs: ir.Value) -> ReferenceEvaluator:
    """Evaluator of the subgraph between the inputs and the value."""
    part, names = model.clone(), {v.name for v in inputs}
    values = {v.name: v for node in part.graph for v in node.outputs}
    part.graph.outputs[:] = [values[value.name]]
    common.RemoveUnusedNodesPass()(part)
    part.graph.inputs[:] = [v for v in part.graph.inputs if v.name in names]
    proto: onnx.ModelProto = ir.to_proto(part)
    return ReferenceEvaluator(proto)
