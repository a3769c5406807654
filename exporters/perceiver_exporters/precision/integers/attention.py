"""Attention in integers: the two products of activations on either side of a softmax.

The left operand of each product (queries, softmax) is rounded like any activation: queries symmetrically, the softmax
over [0, its largest value]. The right operand (keys, values) is rounded to signed integers of 7 bits, so that no sum of
two products exceeds 16 bits and kernels without dot-product instructions are exact as well. Integers beyond the
calibrated range still have the eighth bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.precision.calibration.methods import Bounds
from perceiver_exporters.precision.integers.scheme import REDUCED_RANGE

LEFT, RIGHT = np.dtype(np.uint8), np.dtype(np.int8)


@dataclass(frozen=True)
class Attention:
    """Scores and weighted values of one attention, which make one layer of a placement."""

    layer: str
    scores: ir.Node
    values: ir.Node

    @property
    def operands(self) -> Iterator[tuple[ir.Node, int]]:
        """The four operands: a product and the index of its input."""
        return ((node, index) for node in (self.scores, self.values) for index in (0, 1))


def attention_layer(module: str) -> str:
    """The layer of the products in an attention module, beside the layers of its weights."""
    return f"{module} (products)"


def attentions(graph: ir.Graph) -> list[Attention]:
    """Unmasked attentions of several heads, all operands of which depend on inputs."""
    found = []
    for softmax in (node for node in graph if node.op_type == "Softmax"):
        scores = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
        readers = [(user, index) for user, index in softmax.outputs[0].uses()]
        if scores is None or len(readers) != 1 or readers[0][1] != 0:
            continue
        each = Attention(attention_layer(str(scores.name).rpartition("/")[0]), scores, readers[0][0])
        if all(_quantizable(node, index) for node, index in each.operands) and _heads(scores) > 1:
            found.append(each)
    return found


def left_range(bounds: Bounds) -> tuple[np.float32, int]:
    """Scale and zero point of queries or of a softmax."""
    low, high = bounds
    if low < 0:
        return np.float32(max(-low, high) / 127), 128
    return np.float32(high / 255) or np.float32(1), 0


def right_range(bounds: Bounds) -> tuple[np.float32, int]:
    """Scale and zero point of keys or values."""
    return np.float32(max(-bounds[0], bounds[1]) / REDUCED_RANGE[1]) or np.float32(1), 0


def _quantizable(node: ir.Node, index: int) -> bool:
    return node.op_type == "MatMul" and node.domain == "" and constant_of(node.inputs[index]) is None


def _heads(scores: ir.Node) -> int:
    """Size of the second axis of four of a product's result; 0 if it has another rank, or a size that varies."""
    shape = scores.outputs[0].shape
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return 0
    return shape[1]
