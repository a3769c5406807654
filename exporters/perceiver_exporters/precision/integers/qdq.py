"""Q/DQ nodes around integer products, the form that all backends fuse into integer kernels.

Readers that are not quantised keep the FP32 value of an activation or weight, and so does a graph output. Each product
has its own stored weight, even if two share one: the axis of the scales depends on the product, and ONNX Runtime makes
the weight of one product unsigned. Equal copies share their place in a file (`bundle.storage`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of, drop_unread
from perceiver_exporters.precision.integers.layers import is_dequantized
from perceiver_exporters.precision.integers.relu_clip import make_plain
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Array

Floats = npt.NDArray[np.float32]


def output_axis(node: ir.Node) -> int:
    """The axis of a product's weight with its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return len(weight_shape(node)) - 1


def weight_shape(node: ir.Node) -> tuple[int, ...]:
    """Shape of a product's weight, which may be stored as integers."""
    value = node.inputs[1]
    source = value.producer() if value is not None else None
    tensor = constant_of(source.inputs[0] if source is not None else value)
    if tensor is None:
        raise CheckError(f"{node.name}: expected a stored weight, got one that is computed: export fp32 or fp16")
    return tuple(tensor.shape.numpy())


def weight_of(node: ir.Node) -> Floats:
    """The weight of a product. Raises CheckError if it is computed instead of stored."""
    tensor = constant_of(node.inputs[1])
    if tensor is None:
        raise CheckError(f"{node.name}: expected a stored weight, got one that is computed: export fp32 or fp16")
    weight: Floats = tensor.numpy().astype(np.float32)
    return weight


def weight_scale(weight: Floats, axis: int, scheme: Scheme, least: Floats | float = 0.0) -> Floats:
    """The scale of each output channel, at least `least`; a channel of zeros has the largest scale."""
    low, high = scheme.weights
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale: Floats = np.maximum(2 * np.abs(weight).max(axis=others) / (high - low), least).astype(np.float32)
    scale[scale == 0] = scale.max(initial=0) or 1
    return scale


def fold_factors(node: ir.Node) -> None:
    """Move the factors of a Gemm, `alpha` and `beta`, into its constants: integer kernels have neither."""
    for factor, index in (("alpha", 1), ("beta", 2)):
        scale, value = node.attributes.get_float(factor, 1.0), node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_of(value)
        if scale != 1.0 and value is not None and tensor is not None:
            name = f"{node.name}.{factor}"
            scaled = ir.tensor(tensor.numpy() * np.float32(scale), name=name)
            made = ir.Value(name=name, shape=value.shape, type=value.type, const_value=scaled)
            node.graph.register_initializer(made)  # type: ignore[union-attr]
            node.replace_input_with(index, made)
            node.attributes.pop(factor)


class Writer:
    """Writes into one graph. An activation has one quantizer, however many products read it."""

    def __init__(self, graph: ir.Graph, scheme: Scheme) -> None:
        self.graph = graph
        self._scheme = scheme
        self._names = {str(v.name) for v in (*graph.inputs, *graph.initializers.values())} | {
            str(v.name) for node in graph for v in node.outputs
        }

    def weight(self, node: ir.Node, least: Floats | float = 0.0) -> tuple[ir.Value, Floats]:
        """The product's dequantised integer weight, and its scales, which are at least `least`."""
        weight, axis, (low, high) = weight_of(node), output_axis(node), self._scheme.weights
        scale = weight_scale(weight, axis, self._scheme, least)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        integers = np.clip(np.rint(weight / scale.reshape(shape)), low, high).astype(np.int8)
        value = self.stored(str(node.inputs[1].name), integers, scale, axis, node)  # type: ignore[union-attr]
        return value, scale

    def stored(self, name: str, integers: Array, scale: Array, axis: int, reader: ir.Node) -> ir.Value:
        """A constant, rounded symmetrically and dequantised."""
        name = self._fresh(name, "_quantized")
        zeros = np.zeros(scale.shape, integers.dtype)
        parts = {"quantized": np.ascontiguousarray(integers), "scale": scale, "zero_point": zeros}
        values = [self.constant(f"{name}_{part}", array) for part, array in parts.items()]
        return self.dequantized(values, name, reader, {"axis": axis})

    def fixed(
        self, x: ir.Value, scale: np.float32, zero: int, kind: np.dtype[Any] | None = None
    ) -> tuple[list[ir.Node], ir.Value]:
        """Nodes that quantise an activation over a fixed range, to be inserted, and their result.

        Integers are the scheme's unless their type is given.
        """
        name, kind = self._fresh(str(x.name), "_scale"), kind or np.dtype(self._scheme.activation)
        numbers = {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, kind)}
        parts = [self.constant(f"{name}_{part}", number) for part, number in numbers.items()]
        integers, value = (ir.Value(name=f"{name}_{kind}Linear_Output") for kind in ("Quantize", "Dequantize"))
        return [
            ir.node("QuantizeLinear", [x, *parts], outputs=[integers], name=f"{name}_QuantizeLinear"),
            ir.node("DequantizeLinear", [integers, *parts], outputs=[value], name=f"{name}_DequantizeLinear"),
        ], value

    def dequantized(
        self, parts: list[ir.Value], name: str, reader: ir.Node, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """Result of a DequantizeLinear inserted before a reader."""
        output = (f"{name}_DequantizeLinear_Output",)
        return self.insert(reader, "DequantizeLinear", parts, f"{name}_DequantizeLinear", output, attributes)[0]

    def insert(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        outputs: tuple[str, ...] = ("",),
        attributes: Mapping[str, Any] | None = None,
    ) -> list[ir.Value]:
        """Outputs of a new node before another one."""
        values = [ir.Value(name=output or name) for output in outputs]
        self.graph.insert_before(before, ir.node(operator, inputs, attributes, outputs=values, name=name))
        return values

    def constant(self, name: str, array: Array) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        self._names.add(name)
        return value

    def finish(self) -> None:
        """Rewrite Relu and Clip as the scheme wants them, and drop unread constants."""
        if self._scheme.plain_relu:
            make_plain(self.graph)
        drop_unread(self.graph)

    def _fresh(self, name: str, suffix: str) -> str:
        candidate, n = name, 1
        while candidate + suffix in self._names:
            candidate, n = f"{name}_{n}", n + 1
        return candidate


def reads_integers(node: ir.Node) -> bool:
    """Whether both operands of a product are dequantised 8-bit integers."""
    return all(map(is_dequantized, node.inputs[:2]))


def reads_dynamic_range(node: ir.Node) -> bool:
    """Whether the range of a product's first operand, which is dequantised, is measured at run time."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    quantizer = source.inputs[0].producer() if source is not None and source.inputs[0] is not None else None
    return quantizer is not None and quantizer.op_type == "DynamicQuantizeLinear"
