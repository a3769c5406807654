"""Matcher for linear layers, however they are written: MatMul with or without a bias, or Gemm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import EXEMPT
from perceiver_exporters.rules.matchers.attention import array_of, operand
from perceiver_runtime.tensors import Array

PACKED = "perceiver.packed"
"""Metadata key of a product that was a part of another one; its value is the name of that one."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of `x` (..., C): `weight` (C, width), `bias` (width,) or None; `made` is its result."""

    x: ir.Value
    product: ir.Node
    weight: Array
    bias: Array | None
    made: ir.Value


def linear_of(value: ir.Value | None) -> Linear | None:
    """The linear layer that computes a value, or None."""
    node = value.producer() if value is not None else None
    if value is None or node is None:
        return None
    if node.op_type == "Add":
        for index in (0, 1):
            bias, product = array_of(node.inputs[1 - index]), operand(node, index).producer()
            inner = product_of(product) if bias is not None and product is not None else None
            if bias is not None and inner is not None and inner.bias is None and _is_row(bias, inner.weight.shape[1]):
                return Linear(inner.x, inner.product, inner.weight, bias.reshape(-1), value)
        return None
    return product_of(node)


def product_of(node: ir.Node) -> Linear | None:
    """The linear layer that a MatMul or Gemm is, without what is added to it later; or None."""
    if node.domain or node.op_type not in ("MatMul", "Gemm") or EXEMPT in node.metadata_props:
        return None
    weight = array_of(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    bias = None
    if node.op_type == "Gemm":
        get = node.attributes
        if get.get_int("transA", 0) or get.get_float("alpha", 1.0) != 1 or get.get_float("beta", 1.0) != 1:
            return None
        weight = weight.T if get.get_int("transB", 0) else weight
        given = node.inputs[2] if len(node.inputs) > 2 else None
        bias = array_of(given)
        if given is not None and (bias is None or not _is_row(bias, weight.shape[1])):
            return None
    return Linear(operand(node, 0), node, weight, None if bias is None else bias.reshape(-1), node.outputs[0])


def reading(value: ir.Value) -> Linear | None:
    """The linear layer that alone reads a value, with its bias; or None."""
    node = only_reader(value)
    inner = product_of(node) if node is not None else None
    if node is None or inner is None or inner.x is not value:
        return None
    added = only_reader(inner.made)
    whole = linear_of(added.outputs[0]) if added is not None and added.op_type == "Add" else None
    return whole if whole is not None and whole.product is node else inner


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value, as its first or second operand; or None."""
    readers = list(value.uses())
    return readers[0][0] if len(readers) == 1 and not value.is_graph_output() else None


def _is_row(bias: Array, width: int) -> bool:
    return bias.ndim > 0 and bias.size == bias.shape[-1] == width
