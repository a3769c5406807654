"""Which values the inputs of a graph may have: integers that index a table, numbers that are cast to FP16.

PyTorch refuses an index outside its table. ONNX Runtime counts negative ones from the end, OpenVINO reads zeros, an
engine reads what happens to be there. So the range is derived from the graph as traced, stored in the manifest, and
held against every feed. An index is followed back to the graph's inputs through what moves it and through arithmetic
with constants; where that can't be done (a choice, a remainder), nothing is derived, and the specs of the cut may say
more.
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
"""What passes on some of the elements, if read first."""
UNREAD = frozenset({"Shape", "Size"})
_INDEXED = {"OneHot": 0, "Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1}
"""Where the indices of a table are among a node's inputs; the table is the first."""


@dataclass(frozen=True)
class _Demand:
    """Bounds of a value's elements (None: unbounded): of all of them, or of some alone."""

    low: int | None
    high: int | None
    every: bool = True

    def __bool__(self) -> bool:
        return self.low is not None or self.high is not None


_NOTHING = _Demand(None, None, every=False)
"""A use that takes any number."""


def index_ranges(graph: ir.Graph, profile: Profile) -> dict[str, ValueRange]:
    """By name: the range of each integer input whose elements index something, as far as it can be derived."""
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
    """Keep the ranges in the metadata of a traced graph: rewrite rules replace tables by others."""
    ranges = index_ranges(model.graph, profile)
    model.metadata_props[METADATA] = json.dumps({name: [r.min, r.max] for name, r in ranges.items()})


def _stored(traced: ir.Model) -> dict[str, ValueRange]:
    stored = json.loads(traced.metadata_props.get(METADATA, "{}"))
    return {name: ValueRange(low, high) for name, (low, high) in stored.items()}


def with_index_ranges(manifest: Manifest, traced: Graphs, golden: Sequence[Mapping[str, Array]]) -> Manifest:
    """The manifest with the ranges that traced graphs hold, but for inputs of which `golden` feeds leave theirs.

    The reference took those: a row may be counted from a table's end (`table[-1]`).
    """
    ranges = {entry.name: _stored(traced[entry.name]) for entry in manifest.components}
    for spec in value_specs(_narrowed(manifest, ranges)).values():
        if spec.range is not None and any(not spec.range.holds(f[spec.name]) for f in golden if spec.name in f):
            for step in manifest.pipeline.steps:
                for graph in (graph for graph, value in step.inputs.items() if value == spec.name):
                    ranges[step.component].pop(graph, None)
    return _narrowed(manifest, ranges)


def with_float_ranges(manifest: Manifest, graphs: Graphs) -> Manifest:
    """The manifest with the range of FP16 for the inputs that graphs cast to it."""
    largest = int(np.finfo(np.float16).max)
    ranges = {
        name: {str(v.name): ValueRange(-largest, largest) for v in graph.graph.inputs if _is_cast_to_half(v)}
        for name, graph in graphs.items()
    }
    return _narrowed(manifest, ranges)


def _narrowed(manifest: Manifest, ranges: Mapping[str, Mapping[str, ValueRange]]) -> Manifest:
    """Ranges by component and graph input, put into the components' specs and, through them, the pipeline's."""
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
    """Whether a graph turns a number in single precision into FP16 before it does anything with it."""
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return False
    return any(
        (node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16)
        or (node.op_type in MOVES and _is_cast_to_half(node.outputs[0]))
        for node, _ in value.uses()
    )


def _combined(demands: list[_Demand]) -> tuple[int, int] | None:
    """All bounds on every element; those on some elements alone only if nothing else reads the input."""
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
    """The least or the most of some bounds, if all are known."""
    given = list(bounds)
    known = [bound for bound in given if bound is not None]
    return choose(known) if len(known) == len(given) else None


def _demands(value: ir.Value, profile: Profile) -> Iterator[_Demand]:
    """What the readers of an integer value ask of its elements."""
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
    """The rows of the table along the axis that is indexed, or the classes."""
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
    """Whether one entry is taken from an axis that has only one."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return node.op_type == "Gather" and shape is not None and shape[node.attributes.get_int("axis", 0)] == 1


def _casts_to_integers(node: ir.Node) -> bool:
    made = node.outputs[0].dtype
    return node.op_type == "Cast" and made is not None and made.is_integer()


def _constant(node: ir.Node, index: int) -> Array | None:
    tensor = constant_of(node.inputs[index]) if index < len(node.inputs) else None
    return tensor.numpy() if tensor is not None and tensor.size else None


def _shifted(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """x + c and x - c, which are one shift per element if c has several values: then the widest bounds."""
    constant = _constant(node, 1 - index)
    if constant is None or (node.op_type == "Sub" and index == 1):
        return _NOTHING
    least, most = int(constant.min()), int(constant.max())
    if node.op_type == "Sub":
        least, most = -most, -least
    low = None if demand.low is None else demand.low - most
    high = None if demand.high is None else demand.high - least
    return _Demand(low, high, demand.every)


def _scaled(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """x * c for one positive c."""
    constant = _constant(node, 1 - index)
    if constant is None or constant.min() != constant.max() or (factor := int(constant.min())) < 1:
        return _NOTHING
    low = None if demand.low is None else -(-demand.low // factor)
    return _Demand(low, None if demand.high is None else demand.high // factor, demand.every)


def _clamped(node: ir.Node, index: int, demand: _Demand) -> _Demand:
    """What a lower or upper limit already keeps is asked of no feed."""
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
"""By operator: what is asked of an operand, given what is asked of the result."""
