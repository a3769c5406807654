"""Matcher for normalisations that are written out: mean, variance, quotient.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias        LayerNorm
    x / sqrt(mean(x^2) + epsilon) * scale                                       RMSNorm

over the last axis; the quotient may be a product with a reciprocal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.sized import Shape, Shapes
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer
from perceiver_exporters.rules.matchers.linear import only_reader
from perceiver_exporters.rules.matchers.score_path import scalar
from perceiver_runtime.tensors import Array

SPREADS = frozenset({"Reshape", "Expand", "Unsqueeze"})
"""Operators that give a statistic of each row the rank of the rows."""


@dataclass(frozen=True)
class WrittenNorm:
    """A normalisation of `x`; `made` is its last value.

    Attributes:
        centred: Whether the mean is subtracted.
        plain: Whether it is a quotient, and squares are a power.
        scale: (C,), or None.
        bias: (C,), or None.
    """

    x: ir.Value
    centred: bool
    plain: bool
    epsilon: float
    scale: Array | None
    bias: Array | None
    made: ir.Value

    @property
    def name(self) -> str:
        """Name of the module, or of the last node."""
        node = self.made.producer()
        label = str(node.name) if node is not None else ""
        return label.rpartition("/")[0] or label


def written_norm(node: ir.Node, shapes: Shapes) -> WrittenNorm | None:
    """The normalisation whose quotient is a node, with the scale and bias that follow; or None."""
    divided = _quotient(node)
    if divided is None:
        return None
    x, root, plain = divided
    shape = shapes.get(str(x.name))
    added = producer(root, "Add")
    epsilon = scalar(added.inputs[1]) if added is not None else None
    if shape is None or added is None or epsilon is None:
        return None
    squares = _reduced(operand(added, 0), shape, shapes, "ReduceMean")
    squared = _squares(squares)
    if squared is None:
        return None
    plain = plain and producer(squares, "Pow") is not None
    if squared is x and not _centred(x, shape, shapes):
        return _scaled(WrittenNorm(x, False, plain, epsilon, None, None, node.outputs[0]), shape)
    before, again = _centred(x, shape, shapes), _centred(squared, shape, shapes)
    if before is None or before is not again:
        return None
    return _scaled(WrittenNorm(before, True, plain, epsilon, None, None, node.outputs[0]), shape)


def _quotient(node: ir.Node) -> tuple[ir.Value, ir.Value, bool] | None:
    """What is divided, the square of what divides it, and whether in a Div; or None."""
    if node.op_type == "Div" and (root := producer(node.inputs[1], "Sqrt")):
        return operand(node, 0), operand(root, 0), True
    if node.op_type == "Mul":
        for index in (0, 1):
            inverse = producer(node.inputs[index], "Reciprocal")
            root = producer(inverse.inputs[0], "Sqrt") if inverse else None
            if root is not None:
                return operand(node, 1 - index), operand(root, 0), False
    return None


def _reduced(value: ir.Value, shape: Shape, shapes: Shapes, op: str) -> ir.Value | None:
    """What a statistic (..., 1) of the rows (..., C) is reduced from over the last axis, or None."""
    if shapes.get(str(value.name)) != (*shape[:-1], 1):
        return None
    node = value.producer()
    while node is not None and node.op_type in SPREADS:
        node = operand(node, 0).producer()
    if node is None or node.op_type != op or len(node.inputs) < 2:
        return None
    axes, made = array_of(node.inputs[1]), shapes.get(str(node.outputs[0].name))
    if axes is None or axes.size != 1 or int(axes.item()) not in (-1, len(shape) - 1):
        return None
    return operand(node, 0) if made in (shape[:-1], (*shape[:-1], 1)) else None


def _squares(value: ir.Value | None) -> ir.Value | None:
    """What a value is the square of, or None."""
    node = value.producer() if value is not None else None
    if node is None:
        return None
    square = node.op_type == "Pow" and scalar(node.inputs[1]) == 2
    square |= node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return operand(node, 0) if square else None


def _centred(value: ir.Value, shape: Shape, shapes: Shapes) -> ir.Value | None:
    """The rows that a value is, minus their mean; or None."""
    node = producer(value, "Sub")
    if node is None:
        return None
    rows, mean = operand(node, 0), operand(node, 1)
    summed = producer(mean, "Div")
    if summed is not None and scalar(summed.inputs[1]) == shape[-1]:
        found = _reduced(operand(summed, 0), shape, shapes, "ReduceSum")
    else:
        found = _reduced(mean, shape, shapes, "ReduceMean")
    return rows if found is rows else None


def _scaled(norm: WrittenNorm, shape: Shape) -> WrittenNorm:
    """The normalisation with the constants (C,) that are multiplied and, of a LayerNorm, added next."""
    made, scale, bias = norm.made, None, None
    if (found := _applied(made, "Mul", shape[-1])) is not None:
        scale, made = found
    if norm.centred and (found := _applied(made, "Add", shape[-1])) is not None:
        bias, made = found
    return WrittenNorm(norm.x, norm.centred, norm.plain, norm.epsilon, scale, bias, made)


def _applied(value: ir.Value, op: str, channels: int) -> tuple[Array, ir.Value] | None:
    """The constant (C,) that the only reader of a value applies to it, and the result; or None."""
    node = only_reader(value)
    if node is None or node.op_type != op:
        return None
    other = array_of(operand(node, 1) if node.inputs[0] is value else operand(node, 0))
    row = other is not None and other.size == channels == (other.shape or (0,))[-1] and other.dtype == np.float32
    return (other.reshape(-1), node.outputs[0]) if row and other is not None else None
