"""Parameters, FLOPs and bytes of a component, read from its graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.graph import products
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.trace import PARAMETERS
from perceiver_runtime.tensors import Profile, TensorSpec


@dataclass(frozen=True)
class Cost:
    """What one application costs: FLOPs of matrix products, bytes that its nodes write, bytes of its constants."""

    flops: int
    written: int
    constants: int


def cost(model: ir.Model, inputs: tuple[TensorSpec, ...], profile: Profile) -> Cost:
    """At the profile's `opt` sizes. Constants that several nodes read count once."""
    sized = at_opt(model, inputs, profile).graph
    made = [value for node in sized for value in node.outputs]
    return Cost(
        flops=sum(node_flops(node) for node in products(sized)),
        written=sum(_bytes(value) for value in made),
        constants=sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None),
    )


def parameters(model: ir.Model) -> int:
    """Trained parameters that the traced component reads; a tensor read twice counts once."""
    return int(model.metadata_props[PARAMETERS])


def flops(model: ir.Model, inputs: tuple[TensorSpec, ...], profile: Profile) -> int:
    """2 x multiply-accumulates of all matrix products and convolutions, at the profile's `opt` sizes."""
    return sum(node_flops(node) for node in products(at_opt(model, inputs, profile).graph))


def at_opt(model: ir.Model, inputs: tuple[TensorSpec, ...], profile: Profile) -> ir.Model:
    """A copy of the graph, sharing its tensors, in which every shape is a number: the profile's `opt`."""
    fixed = model.clone()
    for node in fixed.graph:
        for value in node.outputs:
            value.shape = None
    shapes = {spec.name: profile.shapes(spec)[1] for spec in inputs}
    for value in fixed.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    with quiet():
        optimizer.fold_constants(fixed, onnx_shape_inference=True)  # sizes that the graph computes from its inputs'
    common.ShapeInferencePass()(fixed)
    return fixed


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
        raise ValueError(f"shape inference left {value} open")
    return tuple(value.shape.numpy())
