"""Compute queries that depend on no input at export.

Latents are learned, so their normalisation and query projection are constant; so are those of a learned output query.
The normalisation may be the operator, or an RMSNorm of several nodes.
All rows of a batch are equal: one is computed, and broadcast where it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, ints, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, operand
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict

Known = dict[ir.Value, Float64Array]
"""Values that are equal for all rows of a batch, as one row (1, ...) in FP64."""
Handler = Callable[[Float64Array, ir.Node, Known], Float64Array | None]
SPREADS = ("Expand", "Tile")
"""Operators that repeat learned rows over the batch; their second input starts with its size."""


def layer_norm(x: Float64Array, node: ir.Node) -> Float64Array:
    """LayerNormalization of the last axis in FP64, with constant scale and bias."""
    scale, bias = (array_of(value) for value in node.inputs[1:3])
    assert scale is not None
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + node.attributes.get_float("epsilon", 1e-5))
    made: Float64Array = normed * scale.astype(np.float64) + (0.0 if bias is None else bias.astype(np.float64))
    return made


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Evaluate all queries that are independent of the inputs."""
    known: Known = {}
    for node in sized.graph:
        if (row := _evaluate(node, known)) is not None:
            known[node.outputs[0]] = row
    worth = {v for v in known if _op(v) in ("MatMul", "LayerNormalization")}
    if not worth:
        return Declined("no query is independent of the inputs")
    draft = _drafts(sized.graph)
    for value in [v for v in known if _is_end(v, known)]:
        _materialise(value, known, draft, keep_batch=context.target.engines is not None)
    return Applied(", ".join(str(v.name) for v in known if v in worth and _op(v) == "MatMul"))


def _drafts(graph: ir.Graph) -> Callable[[ir.Node], NodeBuilder]:
    return lambda node: NodeBuilder(graph, str(node.name).rsplit("/", 1)[0], node)


def _op(value: ir.Value) -> str:
    node = value.producer()
    return node.op_type if node is not None else ""


def _is_end(value: ir.Value, known: Known) -> bool:
    """Whether a known value has a reader that is not known."""
    return value.is_graph_output() or any(n.outputs[0] not in known for n, _ in value.uses())


def _materialise(value: ir.Value, known: Known, draft: Callable[[ir.Node], NodeBuilder], *, keep_batch: bool) -> None:
    """Replace a value by a constant, expanded over the batch if a reader can't broadcast it."""
    node = value.producer()
    assert node is not None
    readers = [(n, i) for n, i in value.uses() if n.outputs[0] not in known]
    broadcast = not keep_batch and not value.is_graph_output() and all(_broadcasts(n, i) for n, i in readers)
    if node.op_type in SPREADS and not broadcast:
        return None
    build = draft(node)
    row = known[value]
    constant = build.constant(row, f"{node.name}.folded")
    if broadcast or value.shape is None or value.shape[0] == 1:
        return _replace_unknown(value, constant, known)
    batch = _batch(node, known)
    first = build("Slice", batch, ints(0), ints(1), ints(0), name="batch")
    shape = build("Concat", first, ints(*[1] * (row.ndim - 1)), axis=0, name="shape")
    return _replace_unknown(value, build("Expand", constant, shape, name=f"{node.name}.batch"), known)


def _replace_unknown(value: ir.Value, new: ir.Value, known: Known) -> None:
    if value.is_graph_output():
        return replace(value, new)
    for node, index in list(value.uses()):
        if node.outputs[0] not in known:
            node.replace_input_with(index, new)
    return None


def _batch(node: ir.Node, known: Known) -> ir.Value:
    """The target shape (batch first) of the Expand that this node depends on."""
    while node.op_type not in SPREADS:
        above = next(v for v in node.inputs if v in known)
        following = above.producer() if above is not None else None
        assert following is not None  # only these add the batch
        node = following
    return operand(node, 1)


def _broadcasts(node: ir.Node, index: int) -> bool:
    """Whether the reader broadcasts one row over the batch, which its other operand has."""
    if node.op_type not in ("MatMul", "Add") or (node.op_type == "MatMul" and index):
        return False
    other = operand(node, 1 - index)
    output = node.outputs[0].shape
    if other.is_initializer() or other.shape is None or output is None or len(other.shape) != len(output):
        return False
    return other.shape[0] == output[0]


def _evaluate(node: ir.Node, known: Known) -> Float64Array | None:
    """One row (1, ...) of a node's output, if all rows are equal."""
    if node.domain or len(node.outputs) != 1 or not node.inputs or node.inputs[0] is None:
        return None
    handler = _HANDLERS.get(node.op_type)
    first = node.inputs[0]
    x = known.get(first)
    if x is None and node.op_type in (*SPREADS, "LayerNormalization"):
        constant = array_of(first)
        x = None if constant is None else constant.astype(np.float64)
    if handler is None or x is None:
        return None
    return handler(x, node, known)


def _expand(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    shape = node.outputs[0].shape
    if shape is None or len(shape) < 3:
        return None
    row = x[None] if x.ndim == len(shape) - 1 else x
    return row if row.ndim == len(shape) and row.shape[0] == 1 and row.shape[1:] == tuple(shape[1:]) else None


def _layer_norm(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    usable = x.ndim >= 3 and x.shape[0] == 1 and node.attributes.get_int("axis", -1) in (-1, x.ndim - 1)
    return layer_norm(x, node) if usable and array_of(node.inputs[1]) is not None else None


def _matmul(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    weight = array_of(node.inputs[1])
    return None if weight is None or weight.ndim != 2 else x @ weight.astype(np.float64)


def _elementwise(function: Callable[[Float64Array, Float64Array], Float64Array]) -> Handler:
    def handle(x: Float64Array, node: ir.Node, known: Known) -> Float64Array | None:
        if (row := known.get(operand(node, 1))) is not None:
            return function(x, row) if row.ndim == x.ndim else None
        other = array_of(node.inputs[1])
        if other is None or other.ndim >= x.ndim:
            return None
        return function(x, other.astype(np.float64))

    return handle


def _reshape(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    """A reshape within a row; the batch must stay the first dimension."""
    output, target = node.outputs[0].shape, array_of(node.inputs[1])
    if output is None or target is None or not all(isinstance(d, int) for d in output[1:]):
        return None
    sizes = [int(d) for d in output[1:] if isinstance(d, int)]
    return x.reshape(1, *sizes) if math.prod(sizes) == x.size else None


def _transpose(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    perm = tuple(node.attributes["perm"].as_ints())
    return x.transpose(perm) if perm[0] == 0 else None


def _mean(x: Float64Array, node: ir.Node, _: Known) -> Float64Array | None:
    """The mean over channels, as an RMSNorm takes it."""
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    last = axes is not None and axes.tolist() in ([-1], [x.ndim - 1]) and node.attributes.get_int("keepdims", 1) == 1
    return x.mean(-1, keepdims=True) if last and x.ndim >= 3 else None


_HANDLERS: dict[str, Handler] = {
    "Expand": _expand,
    "Tile": _expand,
    "Pow": _elementwise(np.power),
    "ReduceMean": _mean,
    "Sqrt": lambda x, *_: np.sqrt(x),
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Add": _elementwise(np.add),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(np.divide),
    "Reshape": _reshape,
    "Transpose": _transpose,
}

CONSTANT_QUERY = RewriteRule("constant-query", "queries that depend on no input, projected at export", apply)
