"""Matchers for attention whose keys and values are projected from one input, and for its linear layers.

They match the form that `perceiver_exporters.ir.attention` and the chunked attention of the models produce:

    scores   = MatMul(query, Transpose(Reshape(x Wk + bk)))        (B, heads, N, M)
    weighted = MatMul(weights, Transpose(Reshape(x Wv + bv)))      (B, heads, N, v_dim / heads)

where the weights are softmax(scores), or exp(scores - maximum) in an online softmax over chunks. `rules.forms` brings
other forms to this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array
from perceiver_exporters.ir.graph import constant_of
from perceiver_runtime.tensors import Array

KEY_PERM = (0, 2, 3, 1)
VALUE_PERM = (0, 2, 1, 3)
"""Transpositions of (B, M, heads, E) to transposed keys (B, heads, E, M) and to values (B, heads, M, E)."""

MASKED = -1e4
"""Largest number that counts as the score of a masked key, whose weight is zero whatever the other scores are."""


@dataclass(frozen=True)
class Projection:
    """A linear layer: x (B, M, C), weight (C, width), bias (width,); `product` is its MatMul."""

    x: ir.Value
    product: ir.Node
    weight: Array
    bias: Array

    def by_head(self, heads: int) -> Float64Array:
        """The weight in FP64, (heads, C, width / heads)."""
        return self.weight.astype(np.float64).reshape(len(self.weight), heads, -1).transpose(1, 0, 2)

    def bias_by_head(self, heads: int) -> Float64Array:
        """The bias in FP64, (heads, width / heads)."""
        return self.bias.astype(np.float64).reshape(heads, -1)


@dataclass(frozen=True)
class Query:
    """The projection of queries, and the factor that scales its result."""

    projection: Projection
    scale: float


@dataclass(frozen=True)
class AttentionSite:
    """One attention: `query` (B or 1, heads, N, E); keys and values projected from `x` (B, M, C).

    `scores` and `weighted` are its two MatMuls. `softmax` says whether a softmax normalises the weights, so that those
    of a query sum to one and a constant added to all its scores has no effect.
    """

    x: ir.Value
    heads: int
    query: ir.Value
    key: Projection
    value: Projection
    scores: ir.Node
    weighted: ir.Node
    softmax: bool

    @property
    def weights(self) -> ir.Value:
        """Attention weights (B, heads, N, M)."""
        return operand(self.weighted, 0)

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.scores.name).rsplit("/", 1)[0]

    def query_projection(self) -> Query | None:
        """The projection of the queries, if the graph contains it."""
        return projected_query(self.query)


def attention_sites(graph: ir.Graph) -> Iterator[AttentionSite]:
    """All attention whose keys and values are projected from the same input."""
    keys = {p.x: (node, p) for node in graph if (p := projected_keys(node)) is not None}
    for node in list(graph):
        value = projected_values(node)
        if value is None or value.x not in keys:
            continue
        scores, key = keys[value.x]
        heads = heads_of(node)
        if heads is not None and _weights_of(scores, operand(node, 0)):
            softmax = producer(_unshaped(operand(node, 0)), "Softmax") is not None
            yield AttentionSite(value.x, heads, operand(scores, 0), key, value, scores, node, softmax)


def projected_query(query: ir.Value) -> Query | None:
    """The projection of scaled queries (B, heads, N, E), or None."""
    scaled = producer(query, "Mul")
    scale = array_of(scaled.inputs[1]) if scaled else None
    spread = producer(scaled.inputs[0], "Expand") if scaled else None  # queries of one row, over the batch
    whole = spread or scaled
    transposed = producer(whole.inputs[0], "Transpose") if whole else None
    reshaped = producer(transposed.inputs[0], "Reshape") if transposed else None
    found = projection(reshaped.inputs[0]) if reshaped else None
    if found is None or scale is None or scale.size != 1 or transposed is None:
        return None
    return (
        Query(found, float(scale.reshape(()))) if tuple(transposed.attributes["perm"].as_ints()) == VALUE_PERM else None
    )


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator requires."""
    value = node.inputs[index]
    assert value is not None
    return value


def producer(value: ir.Value | None, op: str) -> ir.Node | None:
    """The node that computes the value, if it has this operator type."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None


def array_of(value: ir.Value | None) -> Array | None:
    """The content of an initializer, or None."""
    tensor = constant_of(value)
    return None if tensor is None else tensor.numpy()


def projection(value: ir.Value | None) -> Projection | None:
    """The linear layer that computes a value: MatMul with a constant weight (C, width), with or without bias."""
    added = producer(value, "Add")
    product = producer(added.inputs[0] if added else value, "MatMul")
    weight = array_of(product.inputs[1]) if product else None
    if product is None or weight is None or weight.ndim != 2:
        return None
    bias = array_of(added.inputs[1]) if added else np.zeros(weight.shape[1], np.float32)
    return None if bias is None or bias.ndim != 1 else Projection(operand(product, 0), product, weight, bias)


def biased(product: ir.Node) -> ir.Value:
    """The output of the linear layer that a MatMul belongs to: after the bias, if there is one."""
    made = product.outputs[0]
    readers = list(made.uses())
    added = readers[0][0] if len(readers) == 1 and not made.is_graph_output() else None
    found = projection(added.outputs[0]) if added is not None and added.op_type == "Add" else None
    return added.outputs[0] if added is not None and found and found.product is product else made


def _projected(node: ir.Node, perm: tuple[int, ...]) -> Projection | None:
    """The projection behind the second operand of a MatMul, split into heads and transposed by `perm`."""
    if node.op_type != "MatMul" or node.domain:
        return None
    transposed = producer(node.inputs[1], "Transpose")
    if transposed is None or tuple(transposed.attributes["perm"].as_ints()) != perm:
        return None
    reshaped = producer(transposed.inputs[0], "Reshape")
    return projection(reshaped.inputs[0]) if reshaped else None


def projected_keys(scores: ir.Node) -> Projection | None:
    """The projection of the keys that a MatMul compares with queries, or None."""
    return _projected(scores, KEY_PERM)


def projected_values(weighted: ir.Node) -> Projection | None:
    """The projection of the values that a MatMul weights, or None."""
    return _projected(weighted, VALUE_PERM)


def heads_of(weighted: ir.Node) -> int | None:
    """Number of heads of the values that a MatMul weights."""
    shape = operand(weighted, 1).shape
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _weights_of(scores: ir.Node, weights: ir.Value) -> bool:
    """Whether the weights are computed from these scores, through mask, maximum and softmax or exp."""
    reached: ir.Value | None = weights
    while reached is not None and reached is not scores.outputs[0]:
        node = reached.producer()
        find = _SCORES.get(node.op_type) if node is not None and not node.domain else None
        index = find(node) if find is not None and node is not None else None
        reached = operand(node, index) if node is not None and index is not None else None
    return reached is not None


def _unshaped(value: ir.Value) -> ir.Value:
    """The value before a Reshape, which grouped queries have before and after a mask."""
    reshaped = producer(value, "Reshape")
    return operand(reshaped, 0) if reshaped is not None else value


def _filled(node: ir.Node) -> int | None:
    """Index of the scores of a Where that sets those of masked keys to a constant, or None."""
    fills = [array_of(node.inputs[i]) for i in (1, 2)]
    return next(
        (2 - i for i, fill in enumerate(fills) if fill is not None and fill.size and fill.max() <= MASKED), None
    )


_SCORES: Mapping[str, Callable[[ir.Node], int | None]] = {
    **dict.fromkeys(("Softmax", "Exp", "Add", "Min", "Sub", "Reshape"), lambda _: 0),
    "Where": _filled,
}
"""By operator between scores and weights: index of the operand that the scores are."""
