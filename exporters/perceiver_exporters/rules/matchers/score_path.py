"""Matcher for what lies between the scores of an attention and its softmax: scales, masks, a maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.rules.matchers.attention import MASKED, array_of, operand, producer
from perceiver_exporters.rules.matchers.layout import STEPS
from perceiver_exporters.rules.matchers.linear import only_reader


@dataclass(frozen=True)
class ScorePath:
    """From the product of queries and keys to the product with values.

    Attributes:
        scores: The first MatMul.
        nodes: What lies between it and the softmax, in the order of execution.
        softmax: The softmax over keys.
        weighted: The second MatMul.
    """

    scores: ir.Node
    nodes: tuple[ir.Node, ...]
    softmax: ir.Node
    weighted: ir.Node

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.scores.name).rsplit("/", 1)[0]


def score_paths(graph: ir.Graph) -> list[ScorePath]:
    """Every softmax over the last axis of scores, between two products of two computed values."""
    found = (score_path(node) for node in graph if node.op_type == "Softmax" and not node.domain)
    return [path for path in found if path is not None]


def score_path(softmax: ir.Node) -> ScorePath | None:
    """The path through a softmax, or None if it is no attention's."""
    output = softmax.outputs[0]
    rank = len(output.shape) if output.shape is not None else 0
    if softmax.attributes.get_int("axis", -1) not in (-1, rank - 1):
        return None
    weighted = only_reader(output)
    while weighted is not None and weighted.op_type == "Reshape":
        output = weighted.outputs[0]
        weighted = only_reader(output)
    if weighted is None or not _is_product(weighted) or weighted.inputs[0] is not output:
        return None
    nodes = _back(operand(softmax, 0))
    return ScorePath(nodes[0], tuple(nodes[1:]), softmax, weighted) if nodes else None


def scalar(value: ir.Value | None) -> float | None:
    """A constant of one number, or None."""
    array = array_of(value)
    if array is None or array.size != 1 or not np.issubdtype(array.dtype, np.floating):
        return None
    return float(array.reshape(()))


def scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The operand and the factor of a product with, or a quotient by, a constant number; or None."""
    if node.op_type == "Div" and (by := scalar(node.inputs[1])):
        return operand(node, 0), 1 / by
    if node.op_type == "Mul":
        for index in (0, 1):
            if (factor := scalar(node.inputs[1 - index])) is not None:
                return operand(node, index), factor
    return None


def _back(value: ir.Value) -> list[ir.Node]:
    """Nodes from a MatMul of two computed values to a value, or none."""
    node = value.producer()
    if node is None:
        return []
    if _is_product(node):
        return [node]
    for before in _scores_of(node):
        if found := _back(before):
            return [*found, node]
    return []


def _scores_of(node: ir.Node) -> list[ir.Value]:
    """Operands of a node that may be the scores it scales, masks or moves."""
    if node.op_type in STEPS and node.op_type not in ("Expand", "Split"):
        return [operand(node, 0)]
    if scaled_by := scaled(node):
        return [scaled_by[0]]
    if node.op_type == "Sub":
        return [operand(node, 0)]
    if node.op_type in ("Add", "Min"):
        return [operand(node, 0), operand(node, 1)] if len(node.inputs) == 2 else []
    if node.op_type == "Where":
        return [
            operand(node, i) for i in (1, 2) if (fill := _fill(operand(node, 3 - i))) is not None and fill <= MASKED
        ]
    return []


def fill_of(node: ir.Node) -> float | None:
    """The number that a Where sets scores to, or None."""
    fills = [_fill(operand(node, i)) for i in (1, 2)] if node.op_type == "Where" else []
    return next((fill for fill in fills if fill is not None), None)


def _fill(value: ir.Value) -> float | None:
    spread = producer(value, "Expand")
    return scalar(operand(spread, 0) if spread is not None else value)


def _is_product(node: ir.Node) -> bool:
    computed = [array_of(value) is None for value in node.inputs]
    return node.op_type == "MatMul" and not node.domain and computed[-1]
