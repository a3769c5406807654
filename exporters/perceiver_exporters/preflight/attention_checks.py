"""Preflight checks of attention: keys that overflow a softmax, head widths and types without a fused kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from perceiver_exporters.ir.graph import has_constant_weight
from perceiver_exporters.preflight.report import Problem
from perceiver_exporters.preflight.subject import Subject

MAX_FP16 = 65_504
MAX_FUSED_HEAD = 256
_BETWEEN = ("Mul", "Div", "Add", "Min", "Where", "Cast", "Reshape", "Sub")


def keys(subject: Subject) -> Iterator[Problem]:
    """FP16 softmax over more entries than FP16 can count: the normaliser overflows, and rows become NaN."""
    for component, graph in subject.largest.items():
        for node in graph:
            if node.op_type != "Softmax" or not _is_half(node.inputs[0]):
                continue
            count = _length(node.inputs[0], node.attributes.get_int("axis", -1))
            if count > MAX_FP16:
                yield "blocked", component, f"{node.name or 'Softmax'}: {count:,} keys in an FP16 softmax"
        for node in _fused(graph):
            if _is_half(node.inputs[0]) and (count := _length(node.inputs[1], -2)) > MAX_FP16:
                yield "blocked", component, f"{node.name or 'Attention'}: {count:,} keys in an FP16 softmax"


def single_precision(subject: Subject) -> Iterator[Problem]:
    """ONNX Attention in FP32, which has no kernel: the builder decomposes it, and it is slow."""
    if not subject.dialect.attention:
        return  # reported by the check of operators
    for component, model in subject.graphs.items():
        nodes = [node for node in _fused(model.graph) if node.inputs[0] is not None and _is_single(node.inputs[0])]
        if nodes:
            yield "risky", component, f"{len(nodes)} Attention operators in FP32 are decomposed by the builder"


def head_width(subject: Subject) -> Iterator[Problem]:
    """Head widths above the limit of fused kernels, or not a multiple of 8: the score matrix is stored in memory."""
    for component, graph in subject.largest.items():
        worst: dict[int, int] = {}
        for node in graph:
            if node.op_type == "Softmax" and (product := _scores(node)) is not None:
                width = _length(product.inputs[0], -1)
                if width > MAX_FUSED_HEAD or width % 8:
                    worst[width] = max(worst.get(width, 0), _bytes(product.outputs[0]))
        for width, size in sorted(worst.items()):
            yield "risky", component, f"heads of width {width} run unfused; scores take up to {size / 1e6:,.0f} MB"


def _fused(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "Attention"]


def _scores(softmax: ir.Node) -> ir.Node | None:
    """The product of queries and keys behind a softmax, or None."""
    value = softmax.inputs[0]
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "MatMul":
            return None if has_constant_weight(node) else node
        if node.op_type not in _BETWEEN:
            return None
        operands = [v for v in node.inputs if v is not None and v.producer() is not None]
        value = operands[1 if node.op_type == "Where" and len(operands) > 1 else 0] if operands else None
    return None


def _length(value: ir.Value | None, axis: int) -> int:
    shape = value.shape if value is not None else None
    return shape.numpy()[axis] if shape is not None and shape.is_static() else 0


def _bytes(value: ir.Value) -> int:
    if value.shape is None or not value.shape.is_static() or value.dtype is None:
        return 0
    return math.prod(value.shape.numpy()) * int(value.dtype.itemsize)


def _is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT16


def _is_single(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
