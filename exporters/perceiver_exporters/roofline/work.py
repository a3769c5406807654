"""FLOPs and bytes moved of each component in one run, counted on the stored graphs.

What a run moves to and from memory depends on what the backend fuses and on what caches keep, so that two models bound
it. *Fused*: weights, and the inputs and outputs of each call; no value inside a graph reaches memory. *Unfused*: as
well each node reads its operands and writes its results. Roofline points use the fused model: its bytes are fewest and
its intensity is highest, so that a stated share of the ceiling is never too high.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.ir.flops import counts, node_flops, value_bytes
from perceiver_exporters.ir.graph import has_constant_weight, is_product
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.wiring import bind_symbols, value_specs
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Profile, Range, is_whole

VIEWS = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "DequantizeLinear"))
"""Operators that move nothing: new shapes for the same bytes, and dequantisation, which every backend fuses."""
TYPES: Mapping[str, str] = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "DOUBLE": "fp64",
    "INT8": "int8",
    "UINT8": "int8",
    "FLOAT8E4M3FN": "fp8",
}
"""Precision of a product by the stored type of its operands."""


@dataclass(frozen=True)
class Work:
    """Work of one component in one run of the bundle: all steps, repetitions and chunks that run it.

    Attributes:
        component: Name of the component.
        precision: Precision in the manifest.
        calls: Executions of the graph in a run.
        nodes: Nodes of the graph that compute, at most as many kernels as one call starts.
        flops: 2 x multiply-accumulates of matrix products, convolutions and recurrent layers.
        flops_by_type: The same by the type of the stored operands.
        weighted_flops: FLOPs of the products with a constant weight, which quantisation reaches.
        weights: Bytes of the constants that one call reads, as they are stored; of tables, the rows that it looks up.
        boundary: Bytes of the inputs and outputs of all calls.
        intermediates: Bytes read and written inside the graph by all calls, if nothing is fused.
    """

    component: str
    precision: str
    calls: int
    nodes: int
    flops: int
    flops_by_type: Mapping[str, int]
    weighted_flops: int
    weights: int
    boundary: int
    intermediates: int

    def bytes_moved(self, cache: int = 0) -> int:
        """Bytes between memory and processor in the fused model.

        Weights that fit a cache of this many bytes are read once for all calls, others once for each call.
        """
        return self.weights * (1 if self.weights <= cache else self.calls) + self.boundary

    def bytes_unfused(self) -> int:
        """Bytes between memory and processor in the unfused model, without a cache."""
        return self.weights * self.calls + self.boundary + self.intermediates


def work_of(bundle: Bundle, sizes: Mapping[str, int] | None = None) -> tuple[Work, ...]:
    """Count the work of each component in one run.

    Args:
        bundle: A loaded bundle.
        sizes: Sizes of symbolic dimensions of the session inputs, such as `{"batch": 4}`; others have the `opt` sizes
            of the first profile.

    Returns:
        The work by component, in the order of the manifest.

    Raises:
        UsageError: A dimension is unknown, or its size outside of the profile.
        BundleError: A graph is damaged.
    """
    manifest = bundle.manifest
    resolved = run_sizes(manifest, sizes or {})
    values = value_specs(manifest)
    calls: dict[str, list[_Calls]] = {entry.name: [] for entry in manifest.components}
    for step in manifest.pipeline.steps:
        shapes = {graph: values[value].resolve(resolved) for graph, value in step.inputs.items()}
        bound = bind_symbols(manifest.component(step.component).inputs, shapes, step.component)
        calls[step.component] += _calls(step, {symbol: int(size) for symbol, size in bound.items()})
    return tuple(_work(bundle, entry, calls[entry.name]) for entry in manifest.components if calls[entry.name])


def run_sizes(manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of all symbolic dimensions of a run: the given ones, else `opt`. Raises UsageError."""
    known: dict[str, Range] = {s: r for p in reversed(manifest.profiles) for s, r in p.dimensions.items()}
    for symbol, size in sizes.items():
        if symbol not in known:
            raise UsageError(f"dimension {symbol!r}: this bundle has {', '.join(known) or 'fixed sizes only'}")
        if not is_whole(size) or size not in known[symbol]:
            raise UsageError(
                f"dimension {symbol!r}: this bundle takes {known[symbol].min} to {known[symbol].max}, got {size}"
            )
    return {symbol: sizes.get(symbol, bounds.opt) for symbol, bounds in known.items()}


@dataclass(frozen=True)
class _Calls:
    """A number of calls of a component at the same sizes of its own symbols."""

    sizes: Mapping[str, int]
    count: int


def _calls(step: Step, sizes: Mapping[str, int]) -> list[_Calls]:
    """The calls of one step: its repetitions, or its chunks with a last one that may be smaller."""
    if step.chunk is None:
        return [_Calls(sizes, step.repeat)]
    dimension, total = step.chunk.dimension, sizes[step.chunk.dimension]
    if step.chunk.only_first:
        return [_Calls({**sizes, dimension: min(total, step.chunk.size)}, 1)]
    whole, rest = divmod(total, step.chunk.size)
    pieces = [(step.chunk.size, whole), (rest, 1 if rest else 0)]
    return [_Calls({**sizes, dimension: size}, count) for size, count in pieces if count]


def _work(bundle: Bundle, entry: ComponentEntry, calls: list[_Calls]) -> Work:
    model = stored_graph(bundle, entry.onnx)
    counted = [(_count(model, entry, each.sizes), each.count) for each in calls]

    def total(name: str) -> int:
        return sum(getattr(count, name) * times for count, times in counted)

    by_type: Counter[str] = Counter()
    for count, times in counted:
        by_type.update({kind: flops * times for kind, flops in count.by_type.items()})
    return Work(
        component=entry.name,
        precision=entry.precision,
        calls=sum(times for _, times in counted),
        nodes=max(count.nodes for count, _ in counted),
        flops=sum(by_type.values()),
        flops_by_type=dict(sorted(by_type.items())),
        weighted_flops=total("weighted"),
        weights=max(count.weights for count, _ in counted),
        boundary=total("boundary"),
        intermediates=total("intermediates"),
    )


@dataclass(frozen=True)
class _Count:
    """One call of a component."""

    nodes: int
    by_type: Mapping[str, int]
    weighted: int
    weights: int
    boundary: int
    intermediates: int


def _count(model: ir.Model, entry: ComponentEntry, sizes: Mapping[str, int]) -> _Count:
    profile = Profile("run", {symbol: Range(size, size, size) for symbol, size in sizes.items()})
    with quiet():
        graph = SizedGraph(model, entry.inputs, profile).opt
    live = list(_live(graph))
    by_type: Counter[str] = Counter()
    for node in filter(counts, live):
        by_type[_type(node)] += node_flops(node)
    boundary = sum(map(value_bytes, (*graph.inputs, *graph.outputs)))
    moving = [node for node in live if node.op_type not in VIEWS]
    moved = sum(value_bytes(value) for node in moving for value in (*_activations(node), *node.outputs))
    return _Count(
        nodes=len(moving),
        by_type=by_type,
        weighted=sum(node_flops(node) for node in filter(is_product, live) if has_constant_weight(node)),
        weights=sum(_constant_bytes(value) for value in _constants(graph)),
        boundary=boundary,
        intermediates=max(0, moved - boundary),
    )


def _live(graph: ir.Graph) -> Iterator[ir.Node]:
    """Nodes that depend on an input of the graph; others are computed when it is loaded."""
    live: set[ir.Value] = set(graph.inputs)
    for node in graph:
        if any(value in live for value in node.inputs if value is not None):
            live.update(node.outputs)
            yield node


def _activations(node: ir.Node) -> list[ir.Value]:
    """What a node reads of the values that are computed in the call, before views."""
    stored = (_stored(value) for value in node.inputs if value is not None)
    return [value for value in dict.fromkeys(stored) if not value.is_initializer()]


def _stored(value: ir.Value) -> ir.Value:
    """The value whose bytes a view shows."""
    while (node := value.producer()) is not None and node.op_type in VIEWS and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _constants(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.initializers.values() if value.const_value is not None and value.uses()]


def _constant_bytes(value: ir.Value) -> int:
    """Bytes that a call reads of a constant: of a table that is only looked up, at most as many as its rows found."""
    assert value.const_value is not None  # for mypy
    readers = [use.node for use in value.uses()]
    if all(node.op_type == "Gather" and node.inputs[0] is value for node in readers):
        return min(value.const_value.nbytes, sum(value_bytes(node.outputs[0]) for node in readers))
    return value.const_value.nbytes


def _type(node: ir.Node) -> str:
    """Type that a product computes in: integers if both operands are, else the type of its activations."""
    first, second = node.inputs[0], node.inputs[1]
    assert first is not None
    assert second is not None
    behind = [_dequantized(value) for value in (first, second)]
    value = behind[0] if None not in behind and behind[0] is not None else first
    name = value.dtype.name if value.dtype is not None else ""
    return TYPES.get(name, name.lower())


def _dequantized(value: ir.Value) -> ir.Value | None:
    """The integers behind a dequantisation, or None."""
    while (node := value.producer()) is not None and node.op_type in ("Reshape", "Transpose", "Squeeze", "Unsqueeze"):
        assert node.inputs[0] is not None
        value = node.inputs[0]
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
