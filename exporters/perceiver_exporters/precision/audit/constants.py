"""Static range audit: constants and operators of an FP32 graph that leave a narrower type's range or resolution.

Shapes are the profile's largest. A rule protects nodes, which the rewrite then keeps in FP32, or refuses the graph; ids
are never reused.

| Rule | Finds | Action |
|---|---|---|
| RA001 | a weight or bias of a product beyond the largest finite number | refuses: its FLOPs are promised |
| RA002 | another constant beyond it, or not finite | protects its readers |
| RA003 | a mask fill beyond it: added to scores it becomes -inf, and a row of them NaN | protects its readers |
| RA004 | a softmax or reduction over more addends than the type can count | protects (normalisation is FP32 anyway) |
| RA005 | sines and cosines: positions times frequencies need more digits | protects their argument |
| RA006 | integers that the type can't represent exactly, read by a product or a scaling | protects it |
| RA007 | an operator that has the type only in a later operator set | protects it |

RA008 and RA009 are in `activations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.precision.audit.finding import Action, AuditFinding
from perceiver_exporters.precision.floating import MOVES, PRODUCTS, WITH_CONSTANT
from perceiver_exporters.precision.formats import Format

SUMS = frozenset(
    {"Softmax", "LogSoftmax", "ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "CumSum"}
    | {"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GlobalAveragePool"}
)
LINEAR = PRODUCTS | MOVES | {"Mul", "Add", "Sub", "Div", "Concat"}
INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
MASK_FILL = -1e4
"""Constants below this that are added to scores, or selected among them, are mask fills."""

Problem = tuple[ir.Node, Action, str]


@dataclass(frozen=True)
class _Subject:
    """A graph, the type to audit it for, and shapes at the profile's largest sizes by value name."""

    graph: ir.Graph
    opset: int
    form: Format
    shapes: Shapes

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        return self.shapes.get(str(value.name), ()) if value is not None else ()


def audit(sized: SizedGraph, form: Format) -> tuple[AuditFinding, ...]:
    """All findings in an FP32 graph, in the order of rules."""
    subject = _Subject(sized.graph, sized.graph.opset_imports[""], form, static_shapes(sized.largest))
    return tuple(
        AuditFinding(rule, sized.name, str(node.name), action, why)
        for rule, find in RULES.items()
        for node, action, why in find(subject)
    )


def _weights(subject: _Subject) -> Iterator[Problem]:
    for node in subject.graph:
        if node.op_type in PRODUCTS:
            for value in node.inputs[1:]:
                if (peak := _peak(value)) > subject.form.largest:
                    why = f"constant {value.name} leaves {_range(subject)} at {peak:,g}"  # type: ignore[union-attr]
                    yield node, "refused", why


def _constants(subject: _Subject) -> Iterator[Problem]:
    for node, value, peak in _beyond(subject):
        if not _is_mask_fill(node, value):
            yield node, "protected", f"constant {value.name} leaves {_range(subject)} at {peak:,g}"


def _mask_fills(subject: _Subject) -> Iterator[Problem]:
    for node, value, _ in _beyond(subject):
        if _is_mask_fill(node, value):
            lowest = _numbers(value).min()
            yield node, "protected", f"mask fill {lowest:,g} of {value.name} leaves {_range(subject)}"


def _sums(subject: _Subject) -> Iterator[Problem]:
    for node in subject.graph:
        if node.op_type in SUMS and (addends := _addends(subject, node)) > subject.form.max_addends:
            name, keys = subject.form.name.upper(), subject.form.max_addends
            yield node, "protected", f"{node.op_type} over {addends:,} addends; {name} can count to {keys:,}"


def _angles(subject: _Subject) -> Iterator[Problem]:
    """Nodes between a sine or cosine and the first non-linear node before it."""
    for node in subject.graph:
        if node.op_type in ("Sin", "Cos"):
            chain = list(_linear_ancestors(node))
            largest = max((_peak(v) for n in chain for v in n.inputs), default=0.0)
            for member in (node, *chain):
                why = f"argument of {node.name}, with constants up to {largest:,.4g}: {_digits(subject)}"
                yield member, "protected", why


def _large_integers(subject: _Subject) -> Iterator[Problem]:
    for node in subject.graph:
        if node.op_type in PRODUCTS | WITH_CONSTANT and (cast := _integers_behind(node)):
            yield node, "protected", f"reads the integers of {cast.name}: {_digits(subject)}"


def _operators(subject: _Subject) -> Iterator[Problem]:
    for node in subject.graph:
        since = subject.form.since.get(node.op_type, 0)
        if since > subject.opset:
            why = f"{node.op_type} has {subject.form.name.upper()} from opset {since} on; this is {subject.opset}"
            yield node, "protected", why


RULES: dict[str, Callable[[_Subject], Iterator[Problem]]] = {
    "RA001": _weights,
    "RA002": _constants,
    "RA003": _mask_fills,
    "RA004": _sums,
    "RA005": _angles,
    "RA006": _large_integers,
    "RA007": _operators,
}


def _beyond(subject: _Subject) -> Iterator[tuple[ir.Node, ir.Value, float]]:
    """Constants out of range, with each reader that is not a product."""
    for node in subject.graph:
        for value in node.inputs:
            if value is not None and node.op_type not in PRODUCTS and (peak := _peak(value)) > subject.form.largest:
                yield node, value, peak


def _is_mask_fill(node: ir.Node, value: ir.Value) -> bool:
    return node.op_type in ("Where", "Add") and bool(_numbers(value).min() < MASK_FILL)


def _linear_ancestors(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type in LINEAR:
            yield producer
            yield from _linear_ancestors(producer)


def _integers_behind(node: ir.Node) -> ir.Node | None:
    """The cast from integers whose result reaches a node by data movement and scaling only."""
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        while producer is not None and producer.op_type in MOVES | WITH_CONSTANT | {"Sub", "Div"}:
            first = producer.inputs[0]
            producer = first.producer() if first is not None else None
        if producer is not None and producer.op_type == "Cast":
            source = producer.inputs[0]
            if source is not None and source.dtype in INTEGERS:
                return producer
    return None


def _addends(subject: _Subject, node: ir.Node) -> int:
    """Number of values that a node accumulates for each output."""
    shape = subject.shape(node.inputs[0])
    if not shape:
        return 0
    if node.op_type.startswith("Reduce"):
        return math.prod(shape) // max(1, math.prod(subject.shape(node.outputs[0])))
    if node.op_type in ("InstanceNormalization", "GlobalAveragePool"):
        return math.prod(shape[2:])
    return math.prod(shape[node.attributes.get_int("axis", -1) :]) if "Norm" in node.op_type else shape[_axis(node)]


def _axis(node: ir.Node) -> int:
    return int(node.attributes.get_int("axis", -1))


def _peak(value: ir.Value | None) -> float:
    """Largest magnitude of a floating-point constant, infinities included; 0 for anything else."""
    tensor = constant_of(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not tensor.size:
        return 0.0
    return float(np.abs(tensor.numpy()).max())


def _numbers(value: ir.Value) -> np.ndarray:
    tensor = constant_of(value)
    assert tensor is not None
    return tensor.numpy()


def _range(subject: _Subject) -> str:
    return f"{subject.form.name.upper()}'s range of {subject.form.largest:,g}"


def _digits(subject: _Subject) -> str:
    return f"{subject.form.name.upper()} holds integers exactly up to {subject.form.exact:,}"
