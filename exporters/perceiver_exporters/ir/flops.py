"""Parameters, FLOPs and bytes of a component, read from its graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.graph import products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import PARAMETERS


@dataclass(frozen=True)
class Cost:
    """Cost of one component call: FLOPs of matrix products, bytes written by nodes, bytes of constants."""

    flops: int
    written: int
    constants: int


def cost(graph: SizedGraph) -> Cost:
    """The cost at the profile's `opt` sizes. A constant that several nodes read counts once."""
    constants = [v.const_value for v in graph.graph.initializers.values()]
    return Cost(
        flops=flops(graph),
        written=sum(_bytes(value) for node in graph.opt for value in node.outputs),
        constants=sum(tensor.nbytes for tensor in constants if tensor is not None),
    )


def flops(graph: SizedGraph) -> int:
    """2 x multiply-accumulates of all matrix products and convolutions, at the profile's `opt` sizes."""
    return sum(node_flops(node) for node in products(graph.opt))


def parameters(model: ir.Model) -> int:
    """Trained parameters that the traced component reads; a tensor read twice counts once."""
    return int(model.metadata_props[PARAMETERS])


def node_flops(node: ir.Node) -> int:
    """2 x multiply-accumulates of one MatMul, Gemm, Conv or fused attention whose shapes are known."""
    output = _size(node.outputs[0])
    first, second = node.inputs[0], node.inputs[1]
    if is_fused(node):
        return 2 * math.prod(_size(first)[:2]) * _size(second)[1] * (_size(first)[2] + output[2])
    if node.op_type == "Conv":
        return 2 * math.prod(output) * math.prod(_size(second)[1:])
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", False)
    return 2 * math.prod(output) * _size(first)[-2 if transposed else -1]


def _bytes(value: ir.Value) -> int:
    return 0 if value.dtype is None else int(math.prod(_size(value)) * value.dtype.itemsize)


def _size(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not value.shape.is_static():
        raise ValueError(f"the shape of {value} could not be inferred from the shapes of the inputs")
    return tuple(value.shape.numpy())


def gigaflop(flops: int) -> str:
    """FLOPs with a unit and three significant digits."""
    digits = max(0, 2 - int(math.log10(max(flops, 1) / 1e9)))
    return f"{flops / 1e9:.{min(digits, 6)}f} GFLOP"
