"""Valid ranges of graph inputs: integers that index a table, numbers that are cast to FP16.

PyTorch refuses an index outside its table. ONNX Runtime counts negative ones from the end, OpenVINO reads zeros, an
engine reads arbitrary memory. The range is therefore derived from the traced graph, stored in the manifest, and checked
on every feed. An index is traced back to graph inputs through data movement and arithmetic with constants; through
other operators (Where, Mod) nothing is derived, and the specs of the cut may state a range.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of
from perceiver_runtime.format.wiring import value_specs
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.tensors import Array, Profile, ValueRange

Graphs = Mapping[str, ir.Model]

METADATA = "perceiver.ranges"
"""Metadata key of a traced graph: the ranges of its integer inputs, as JSON."""

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
SELECTIONS = frozenset({"Slice", "Split", "Gather", "GatherND", "GatherElements"})
"""Operators whose output has some elements of their first input."""
UNREAD = frozenset({"Shape", "Size"})
_INDEXED = {"OneHot": 0, "Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1}
"""Position of the indices among a node's inputs; the table is the first input."""


@dataclass(frozen=True)
class _Demand:
    """Bounds (None: unbounded) that a use requires of a value's elements: of `every` one, or of some of them."""

    low: int | None
    high: int | None
    every: bool = True

    def __bool__(self) -> bool:
        return self.low is not None or self.high is not None


_NOTHING = _Demand(None, None, every=False)
"""A use without bounds."""


def index_ranges(graph: ir.Graph, profile: Profile) -> dict[str, ValueRange]:
    """Ranges of integer inputs that index something, by name, as far as they can be derived."""
    found = {}
    for value in graph.inputs:
        if value.dtype is not None and value.dtype.is_integer():
            bounds = _combined(list(_demands(value, profile)))
            if bounds is not None:
                limits = np.iinfo(value.dtype.numpy())
                low, high = max(bounds[0], int(limits.min)), min(bounds[1], int(limits.max))
                found[str(value.name)] = ValueRange(low, high)
    return found


def store(model: ir.Model, profile: Profile) -> None:
    """Store the ranges in the metadata of a traced graph, before rewrite rules replace its tables."""
    ranges = index_ranges(model.graph, profile)
    model.metadata_props[METADATA] = json.dumps({name: [r.min, r.max] for name, r in ranges.items()})


def _stored(traced: ir.Model) -> dict[str, ValueRange]:
    stored = json.loads(traced.metadata_props.get(METADATA, "{}"))
    return {name: ValueRange(low, high) for name, (low, high) in stored.items()}


def with_index_ranges(manifest: Manifest, traced: Graphs, golden: Sequence[Mapping[str, Array]]) -> Manifest:
    """The manifest with the stored ranges of traced graphs, except for inputs whose golden feeds exceed them.

    The reference accepts those feeds: negative indices count from a table's end (`table[-1]`).
    """
    ranges = {entry.name: _stored(traced[entry.name]) for entry in manifest.components}
    for spec in value_specs(_narrowed(manifest, ranges)).values():
        if spec.range is not None and any(not spec.range.holds(f[spec.name]) for f in golden if spec.name in f):
            for step in manifest.pipeline.steps:
                for graph in (graph for graph, value in step.inputs.items() if value == spec.name):
                    ranges[step.component].pop(graph, None)
    return _narrowed(manifest, ranges)


def with_float_ranges(manifest: Manifest, graphs: Graphs) -> Manifest:
    """The manifest with FP16's range for inputs that graphs cast to FP16."""
    largest = int(np.finfo(np.float16).max)
    ranges = {
        name: {str(v.name): ValueRange(-largest, largest) for v in graph.graph.inputs if _is_cast_to_half(v)}
        for name, graph in graphs.items()
    }
    return _narrowed(manifest, ranges)


def _narrowed(manifest: Manifest, ranges: Mapping[str, Mapping[str, ValueRange]]) -> Manifest:
    """The manifest with ranges (by component and graph input) in the specs of its components and pipeline."""
    components = []
    for entry in manifest.components:
        found = ranges[entry.name]
        inputs = tuple(spec.within(found.get(spec.name)) for spec in entry.inputs)
        components.append(dataclasses.replace(entry, inputs=inputs))
    whole, pipeline = dataclasses.replace(manifest, components=tuple(components)), manifest.pipeline
    values = value_specs(whole)
    inputs = tuple(values[spec.name] for spec in pipeline.inputs)
    return dataclasses.replace(whole, pipeline=dataclasses.replace(pipeline, inputs=inputs))


def _is_cast_to_half(value: ir.Value) -> bool:
    """Whether a floating-point input is cast to FP16 before any arithmetic."""
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return False
    return any(
        (node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16)
        or (node.op_type in MOVES and _is_cast_to_half(node.outputs[0]))
        for node, _ in value.uses()
    )


def _combined(demands: list[_Demand]) -> tuple[int, int] | None:
    """Bounds of all uses combined; those on some elements count only if no use is without bounds."""
    every = [d for d in demands if d.every and d]
    some = [d for d in demands if not d.every]
    if some and all(some):
        every.append(_Demand(_outermost(min, (d.low for d in some)), _outermost(max, (d.high for d in some))))
    lows, highs = [d.low for d in every if d.low is not None], [d.high for d in every if d.high is not None]
    if not lows and not highs:
        return None
    limits = np.iinfo(np.int64)
    return int(max(lows, default=limits.min)), int(min(highs, default=limits.max))


def _outermost(choose: Callable[[list[int]], int], bounds: Iterable[int | None]) -> int | None:
    """The smallest or largest of some bounds, if all are known."""
    given = list(bounds)
    known = [bound for bound in given if bound is not None]
    return choose(known) if len(known) == len(given) else None


def _demands(value: ir.Value, profile: Profile) -> Iterator[_Demand]:
    """Bounds that the readers of an integer value require of its elements."""
    for node, index in value.uses():
        if node.op_type not in UNREAD:
            yield from _through(node, index, profile)


def _through(node: ir.Node, index: int, profile: Profile) -> Iterator[_Demand]:
    if _INDEXED.get(node.op_type) == index:
        yield from _indexed(node, profile)
    elif node.op_type == "Concat" or (node.op_type in MOVES and index == 0) or _casts_to_integers(node):
        yield from _demands(node.outputs[0], profile)
    elif node.op_type in SELECTIONS and index == 0:
        whole = _selects_all(node)
        for output in node.outputs:
            yield from (d if whole else dataclasses.replace(d, every=False) for d in _demands(output, profile))
    elif node.op_type in _ARITHMETIC:
        yield from (_ARITHMETIC[node.op_type](node, index, d) for d in _demands(node.outputs[0], profile))
    else:
        yield _NOTHING


def _indexed(node: ir.Node, profile: Profile) -> Iterator[_Demand]:
    """Bounds of indices: the size of the indexed axis, or the number of classes."""
    if node.op_type == "OneHot":
        depth = _constant(node, 1)
        yield _NOTHING if depth is None else _Demand(0, int(depth.item()) - 1)
        return
    table, indices = node.inputs[0], node.inputs[1]
    assert table is not None
    assert indices is not None
    if table.shape is None:
        return
    sizes = [_size(dimension, profile) for dimension in table.shape]
    if not node.op_type.endswith("ND"):
        size = sizes[node.attributes.get_int("axis", 0)]
        yield _Demand(0, None if size is None else size - 1)
        return
    width, skipped = indices.shape[-1] if indices.shape is not None else None, node.attributes.get_int("batch_dims", 0)
    if isinstance(width, int):  # one column per axis
        indexed = sizes[skipped : skipped + width]
        largest = _outermost(max, indexed)
        yield _Demand(0, None if largest is None else largest - 1, every=width == 1)


def _size(dimension: int | ir.SymbolicDim, profile: Profile) -> int | None:
    if isinstance(dimension, int):
        return dimension
    sizes = profile.dimensions.get(str(dimension.value))
    return sizes.max if sizes is not None else None


def _selects_all(node: ir.Node) -> bool:
    """Whether a Gather reads an axis of size one, and so all elements."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return node.op_type == "Gather" and shape is not None and shape[node.attributes.get_int("axis", 0)] == 1


def _casts_to_integers(node: ir.Node) -> bool:
    made = node.outputs[0].dtype
    return node.op_type == "Cast" and made is not None and made.is_integer()


def _constant(node: ir.Node, index: int) -> Array | None:
    tensor = constant_of(node.inputs[index]) if index < len(node.inputs) else None
    return tensor.numpy() if tensor is not None and tensor.size else None


def _shifted(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """Bounds of x from those of x + c or x - c; the widest ones if c has several values."""
    constant = _constant(node, 1 - index)
    if constant is None or (node.op_type == "Sub" and index == 1):
        return _NOTHING
    smallest, largest = int(constant.min()), int(constant.max())
    if node.op_type == "Sub":
        smallest, largest = -largest, -smallest
    low = None if demand.low is None else demand.low - largest
    high = None if demand.high is None else demand.high - smallest
    return _Demand(low, high, demand.every)


def _scaled(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """Bounds of x from those of x * c, for one positive c."""
    constant = _constant(node, 1 - index)
    if constant is None or constant.min() != constant.max() or (factor := int(constant.min())) < 1:
        return _NOTHING
    low = None if demand.low is None else -(-demand.low // factor)
    return _Demand(low, None if demand.high is None else demand.high // factor, demand.every)


def _clamped(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """Bounds of x from those of a clamped x: a bound that the clamp enforces is not required."""
    bounds = [_constant(node, i) for i in range(len(node.inputs)) if i != index]
    low, high = demand.low, demand.high
    lower = bounds[0] if node.op_type in ("Max", "Clip") and bounds else None
    upper = bounds[-1] if node.op_type == "Min" or (node.op_type == "Clip" and len(bounds) > 1) else None
    if low is not None and lower is not None and lower.min() >= low:
        low = None
    if high is not None and upper is not None and upper.max() <= high:
        high = None
    return dataclasses.replace(demand, low=low, high=high) if low is not None or high is not None else _NOTHING


_ARITHMETIC = {
    "Add": _shifted,
    "Sub": _shifted,
    "Mul": _scaled,
    "Max": _clamped,
    "Min": _clamped,
    "Clip": _clamped,
}
"""By operator: bounds of an operand from those of the result."""
