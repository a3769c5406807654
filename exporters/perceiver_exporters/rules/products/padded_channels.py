"""Pad the inputs of products with zeros to a multiple of 8 channels for tensor cores: 261 becomes 264.

The weight gets as many zero rows, so results do not change. Padding follows the normalisation, whose mean and variance
remain those of the original channels.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

MULTIPLE = 8
"""FP16 values per 16-byte load of tensor cores. Suits INT8 as well, whose kernels pad 8 to 16."""


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Pad all normalised inputs of products whose width is not a multiple of 8."""
    if context.precision == "fp32":
        return Declined("FP32 products are not padded")
    norms = [node for node in sized.graph if node.op_type == "LayerNormalization"]
    found = [(norm, width) for norm in norms if (width := _width(norm)) is not None]
    for norm, width in found:
        _pad(sized.graph, norm, -width % MULTIPLE)
    if not found:
        return Declined(f"every product's width is a multiple of {MULTIPLE}")
    return Applied(", ".join(f"{norm.name} {width} to {width + -width % MULTIPLE}" for norm, width in found))


def _width(norm: ir.Node) -> int | None:
    """The width of a normalisation that needs padding, if only products with constant weights read it; or None."""
    readers = list(norm.outputs[0].uses())
    weights = [array_of(node.inputs[1]) for node, index in readers if node.op_type == "MatMul" and index == 0]
    if not readers or len(weights) != len(readers) or any(w is None or w.ndim != 2 for w in weights):
        return None
    width = next(len(w) for w in weights if w is not None)
    return width if width % MULTIPLE else None


def _pad(graph: ir.Graph, norm: ir.Node, missing: int) -> None:
    normed = norm.outputs[0]
    readers = [node for node, _ in normed.uses()]
    first = min(readers, key=list(graph).index)
    build = NodeBuilder(graph, str(norm.name).rsplit("/", 1)[0], first)
    assert normed.shape is not None  # a traced value has its rank
    ends = ints(*[0] * (2 * len(normed.shape) - 1), missing)
    padded = build("Pad", normed, ends, name="padded")
    for node in readers:
        weight = array_of(node.inputs[1])
        assert weight is not None  # _width saw it
        node.replace_input_with(0, padded)
        node.replace_input_with(1, build.constant(_with_zero_rows(weight, missing), f"{node.name}.padded"))


def _with_zero_rows(weight: Array, missing: int) -> Array:
    return np.pad(weight, ((0, missing), (0, 0)))


PADDED_CHANNELS = RewriteRule(
    "padded-channels",
    "inputs of products padded to multiples of 8 for tensor cores",
    apply,
    backends=("tensorrt", "tensorrt-rtx"),
)
