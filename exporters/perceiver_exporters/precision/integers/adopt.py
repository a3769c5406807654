"""Quantizers that a model brings, in the integers of the target's kernels. Scales and rounding stay as they are.

An unsigned activation is the signed one plus 128, with a zero point that is larger by 128.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.ir.prequantized import quantizers
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Array

OFFSET = 128


def scale_of(value: ir.Value) -> Array:
    """The scale by which a value is dequantised. Raises CheckError if it is computed from inputs."""
    node = value.producer()
    tensor = constant_of(node.inputs[1]) if node is not None else None
    if tensor is None:
        raise CheckError(
            f"{value.name}: expected a quantizer with a constant scale, got one that depends on the inputs"
        )
    return tensor.numpy()


def adopt(graph: ir.Graph, scheme: Scheme) -> None:
    """Give all quantizers of activations the scheme's integers.

    Raises:
        CheckError: A zero point that the target's kernels can't have, or parameters that depend on inputs.
    """
    for node in quantizers(graph):
        readers = [reader for reader, _ in node.outputs[0].uses()]
        for each in (node, *readers):
            _shift(graph, each, scheme)
        node.outputs[0].type = ir.TensorType(_kind(scheme))


def _shift(graph: ir.Graph, node: ir.Node, scheme: Scheme) -> None:
    """Give one node the zero point in the scheme's type."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = constant_of(value)
    if tensor is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        raise CheckError(f"{node.name}: expected Q/DQ nodes with constant zero points, got {node.op_type}")
    zero = tensor.numpy().astype(np.int64)
    unsigned = zero + (OFFSET if tensor.dtype == ir.DataType.INT8 else 0)
    made = unsigned if scheme.activation == "uint8" else unsigned - OFFSET
    if scheme.symmetric and made.any():
        raise CheckError(
            f"{node.name}: the target's kernels take symmetric INT8, got zero point {int(made.reshape(-1)[0])}: "
            "train with symmetric quantizers, or export for cpu"
        )
    stored = made.astype(scheme.activation)
    name = f"{node.name}.zero_point"
    fresh = ir.tensor(stored, name=name)
    constant = ir.Value(name=name, shape=ir.Shape(stored.shape), type=ir.TensorType(fresh.dtype), const_value=fresh)
    graph.register_initializer(constant)
    node.replace_input_with(2, constant)


def _kind(scheme: Scheme) -> ir.DataType:
    return ir.DataType.UINT8 if scheme.activation == "uint8" else ir.DataType.INT8
