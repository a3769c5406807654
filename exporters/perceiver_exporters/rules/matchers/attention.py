"""Finding attention in a traced graph: projections of one normalised input to keys and to values, and who reads them.

The form is the one that `perceiver_exporters.ir.attention` and `models.chunked` give:

    scores   = MatMul(query, Transpose(Reshape(x Wk + bk)))        (B, heads, N, M)
    weighted = MatMul(weights, Transpose(Reshape(x Wv + bv)))      (B, heads, N, v_dim / heads)

where the weights are a softmax of the scores, or their exponentials in a running sum over chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Exact
from perceiver_exporters.ir.graph import constant_of
from perceiver_runtime.tensors import Array

KEYS = (0, 2, 3, 1)
VALUES = (0, 2, 1, 3)


@dataclass(frozen=True)
class Projection:
    """x (B, M, C) times weight (C, width) plus bias (width,), split into heads and transposed."""

    x: ir.Value
    product: ir.Node
    weight: Array
    bias: Array

    def by_head(self, heads: int) -> Exact:
        """The weight in FP64, (heads, C, width / heads)."""
        return self.weight.astype(np.float64).reshape(len(self.weight), heads, -1).transpose(1, 0, 2)

    def bias_by_head(self, heads: int) -> Exact:
        """The bias in FP64, (heads, width / heads)."""
        return self.bias.astype(np.float64).reshape(heads, -1)


@dataclass(frozen=True)
class Query:
    """Queries as projected, before `scale`."""

    projection: Projection
    scale: float


@dataclass(frozen=True)
class Site:
    """One attention: queries (B or 1, heads, N, E), keys and values projected from `x` (B, M, C).

    `softmax`: the weights of a query sum to one, and a constant added to all its scores changes nothing.
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
        """What the values are weighted by, (B, heads, N, M)."""
        return operand(self.weighted, 0)

    @property
    def name(self) -> str:
        """Name of the module that attends."""
        return str(self.scores.name).rsplit("/", 1)[0]

    def asked_by(self) -> Query | None:
        """What the queries are projected from, if they are projected here."""
        return projected_query(self.query)


def sites(graph: ir.Graph) -> Iterator[Site]:
    """Every attention whose keys and values come from the same input."""
    keys = {p.x: (node, p) for node in graph if (p := _projected(node, KEYS)) is not None}
    for node in list(graph):
        value = projected_values(node)
        if value is None or value.x not in keys:
            continue
        scores, key = keys[value.x]
        heads = heads_of(node)
        if heads is not None and _weights_of(scores, operand(node, 0)):
            softmax = producer(operand(node, 0), "Softmax") is not None
            yield Site(value.x, heads, operand(scores, 0), key, value, scores, node, softmax)


def projected_query(query: ir.Value) -> Query | None:
    """What scaled queries (B, heads, N, E) are projected from, if they are."""
    scaled = producer(query, "Mul")
    scale = array_of(scaled.inputs[1]) if scaled else None
    spread = producer(scaled.inputs[0], "Expand") if scaled else None  # queries of one row, over the batch
    whole = spread or scaled
    transposed = producer(whole.inputs[0], "Transpose") if whole else None
    reshaped = producer(transposed.inputs[0], "Reshape") if transposed else None
    found = projection(reshaped.inputs[0]) if reshaped else None
    if found is None or scale is None or scale.size != 1 or transposed is None:
        return None
    return Query(found, float(scale)) if tuple(transposed.attributes["perm"].as_ints()) == VALUES else None


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that must be there."""
    value = node.inputs[index]
    assert value is not None
    return value


def producer(value: ir.Value | None, op: str) -> ir.Node | None:
    """The node that makes the value, if it is of that type."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None


def array_of(value: ir.Value | None) -> Array | None:
    """The constant behind an initializer."""
    tensor = constant_of(value)
    return None if tensor is None else tensor.numpy()


def projection(value: ir.Value | None) -> Projection | None:
    """A linear layer with a constant weight (C, width), with or without bias."""
    added = producer(value, "Add")
    product = producer(added.inputs[0] if added else value, "MatMul")
    weight = array_of(product.inputs[1]) if product else None
    if product is None or weight is None or weight.ndim != 2:
        return None
    bias = array_of(added.inputs[1]) if added else np.zeros(weight.shape[1], np.float32)
    return None if bias is None or bias.ndim != 1 else Projection(operand(product, 0), product, weight, bias)


def biased(product: ir.Node) -> ir.Value:
    """What a linear layer's product makes, with its bias, if it has one."""
    made = product.outputs[0]
    readers = list(made.uses())
    added = readers[0][0] if len(readers) == 1 and not made.is_graph_output() else None
    found = projection(added.outputs[0]) if added is not None and added.op_type == "Add" else None
    return added.outputs[0] if added is not None and found and found.product is product else made


def _projected(node: ir.Node, perm: tuple[int, ...]) -> Projection | None:
    """What the second operand of a product is projected from."""
    if node.op_type != "MatMul" or node.domain:
        return None
    transposed = producer(node.inputs[1], "Transpose")
    if transposed is None or tuple(transposed.attributes["perm"].as_ints()) != perm:
        return None
    reshaped = producer(transposed.inputs[0], "Reshape")
    return projection(reshaped.inputs[0]) if reshaped else None


def projected_values(weighted: ir.Node) -> Projection | None:
    """What the second operand of a product is projected from, if it is values."""
    return _projected(weighted, VALUES)


def heads_of(weighted: ir.Node) -> int | None:
    """Heads of the values that a product weights."""
    shape = operand(weighted, 1).shape
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _weights_of(scores: ir.Node, weights: ir.Value) -> bool:
    """Whether the weights are made from these scores: the mask, the maximum and exp lie between."""
    reached = weights
    for op in ("Softmax", "Exp", "Add", "Min", "Sub"):
        node = producer(reached, op)
        reached = operand(node, 0) if node else reached
    return reached is scores.outputs[0]
