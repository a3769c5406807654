"""Parameters, FLOPs and bytes of a component, read from its graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import PARAMETERS

RECURRENT = ("LSTM", "GRU", "RNN")


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
        written=sum(value_bytes(value) for node in graph.opt for value in node.outputs),
        constants=sum(tensor.nbytes for tensor in constants if tensor is not None),
    )


def flops(graph: SizedGraph) -> int:
    """2 x multiply-accumulates of all matrix products, convolutions and recurrences, at the profile's `opt` sizes."""
    return sum(node_flops(node) for node in graph.opt if counts(node))


def recurrent_flops(graph: SizedGraph) -> int:
    """Those of recurrent layers alone."""
    return sum(node_flops(node) for node in graph.opt if node.domain == "" and node.op_type in RECURRENT)


def parameters(model: ir.Model) -> int:
    """Trained parameters that the traced component reads; a tensor read twice counts once."""
    return int(model.metadata_props[PARAMETERS])


def counts(node: ir.Node) -> bool:
    """Whether a node's FLOPs are counted: products of any kind. All else is limited by memory."""
    return is_fused(node) or (node.domain == "" and node.op_type in _COUNTED)


def node_flops(node: ir.Node) -> int:
    """2 x multiply-accumulates of one node that `counts`, whose shapes are known."""
    return _attention(node) if is_fused(node) else _COUNTED[node.op_type](node)


def value_bytes(value: ir.Value) -> int:
    """Bytes of a value of known shape."""
    return 0 if value.dtype is None else math.ceil(math.prod(_size(value)) * value.dtype.itemsize)


def _attention(node: ir.Node) -> int:
    query, key, output = _size(node.inputs[0]), _size(node.inputs[1]), _size(node.outputs[0])
    return 2 * math.prod(query[:2]) * key[1] * (query[2] + output[2])


def _matrix_product(node: ir.Node) -> int:
    return 2 * math.prod(_size(node.outputs[0])) * _size(node.inputs[0])[-1]


def _gemm(node: ir.Node) -> int:
    rows = _size(node.inputs[0])
    return 2 * math.prod(_size(node.outputs[0])) * rows[-2 if node.attributes.get_int("transA", 0) else -1]


def _convolution(node: ir.Node) -> int:
    """The kernel is (channels out, channels in / groups, ...): each output reads that many inputs."""
    return 2 * math.prod(_size(node.outputs[0])) * math.prod(_size(node.inputs[1])[1:])


def _transposed_convolution(node: ir.Node) -> int:
    """The kernel is (channels in, channels out / groups, ...): each input adds to that many outputs."""
    return 2 * math.prod(_size(node.inputs[0])) * math.prod(_size(node.inputs[1])[1:])


def _recurrence(node: ir.Node) -> int:
    """Gates of all positions: X (L, B, I) with W (directions, gates * H, I), and the state with R."""
    length, batch, _ = _size(node.inputs[0])
    return 2 * length * batch * (math.prod(_size(node.inputs[1])) + math.prod(_size(node.inputs[2])))


def _einsum(node: ir.Node) -> int:
    """One multiply-accumulate for every combination of indices, for each factor after the first."""
    terms = node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        shape, named = list(_size(value)), term.replace("...", ".")
        if "." in named:  # the dimensions that an ellipsis stands for, as one
            start, count = named.index("."), len(shape) - len(named) + 1
            shape[start : start + count] = [math.prod(shape[start : start + count])]
        for index, size in zip(named, shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return 2 * (len(terms) - 1) * math.prod(sizes.values())


_COUNTED: Mapping[str, Callable[[ir.Node], int]] = {
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(RECURRENT, _recurrence),
    "Einsum": _einsum,
}


def _size(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not value.shape.is_static():
        raise ValueError(f"the shape of {value} could not be inferred from the shapes of the inputs")
    return tuple(value.shape.numpy())


def gigaflop(flops: int) -> str:
    """FLOPs with a unit and three significant digits."""
    digits = max(0, 2 - int(math.log10(max(flops, 1) / 1e9)))
    return f"{flops / 1e9:.{min(digits, 6)}f} GFLOP"
