"""Clean-up and naming of traced graphs, and queries on their values and products."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.prequantized import store_quantized

_SCOPES = "pkg.torch.onnx.name_scopes"
_PASSES = (
    common.CommonSubexpressionEliminationPass(),
    common.DeduplicateInitializersPass(size_limit=sys.maxsize),
    common.RemoveUnusedNodesPass(),
    common.ClearMetadataAndDocStringPass(),
)


def clean(model: ir.Model) -> ir.Model:
    """Fold constants, merge equal nodes and initializers, remove unused nodes and metadata of the exporting machine.

    A weight shared by several layers is transposed for each of them, one packed for several is split. Both are folded
    whatever their size, because quantisers recognise constant weights only.
    """
    common.CommonSubexpressionEliminationPass()(model)
    _split_constants(model.graph)
    optimizer.fold_constants(model, output_size_limit=sys.maxsize, should_fold=_folds)
    store_quantized(model)
    for step in _PASSES:
        step(model)
    return model


def name_by_module(model: ir.Model) -> ir.Model:
    """Name nodes after their PyTorch module, values after their node, anonymous constants after their reader."""
    taken: set[str] = set()
    kept = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        node.name = _unique(f"{scope}/{node.op_type}" if (scope := _scope(node)) else node.op_type, taken)
        for i, value in enumerate(node.outputs):
            if id(value) not in kept:
                value.name = f"{node.name}:{i}" if i else node.name
    for value in list(model.graph.initializers.values()):
        if str(value.name).startswith("val_"):
            value.name = _unique(f"{value.consumers()[0].name}.constant" if value.consumers() else "unused", taken)
    return model


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or None for other values."""
    return value.const_value if value is not None and value.is_initializer() else None


def drop_unread(graph: ir.Graph) -> None:
    """Remove unused initializers."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)


def move_name(before: ir.Value, after: ir.Value, suffix: str) -> None:
    """Give the name of a graph output to the value that replaces it, and append a suffix to that of the old value."""
    name = str(before.name)
    before.name = f"{name}{suffix}"
    after.name = name


def products(graph: ir.Graph) -> Iterator[ir.Node]:
    """Matrix products, convolutions and fused attention: nearly all of a Perceiver's FLOPs."""
    return filter(is_product, graph)


def is_product(node: ir.Node) -> bool:
    """Whether a node is one of `products`."""
    return (node.op_type in ("MatMul", "Gemm", "Conv") and node.domain == "") or is_fused(node)


EXEMPT = "perceiver.exempt"
"""Metadata key of a product of a rewrite rule that is not quantised; its value is the reason."""


def has_constant_weight(node: ir.Node) -> bool:
    """Whether a product's second operand is a trained matrix or kernel.

    Vectors and stacks of matrices do not count: integer kernels don't support them, nor do PyTorch's linear layers.
    """
    if EXEMPT in node.metadata_props or is_fused(node) or not _is_constant(node.inputs[1]):
        return False
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    return node.op_type == "Conv" or shape is None or len(shape) == 2


def _is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer, or derived from one by casts and (de)quantisation only."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type not in ("Cast", "DequantizeLinear", "QuantizeLinear"):
            return False
        value = node.inputs[0]
    return value is not None


def _folds(node: ir.Node) -> bool | None:
    moved = node.op_type in ("Transpose", "Reshape") and all(constant_of(value) is not None for value in node.inputs)
    return True if moved else None


def _split_constants(graph: ir.Graph) -> None:
    """Replace the parts of a constant that a node splits by constants: the weights of packed projections."""
    for node in [node for node in graph if node.op_type == "Split"]:
        whole, given = constant_of(node.inputs[0]), constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if whole is None or (len(node.inputs) > 1 and given is None):
            continue
        array, axis = whole.numpy(), node.attributes.get_int("axis", 0)
        each = -(-array.shape[axis] // len(node.outputs))
        sizes = given.numpy().tolist() if given is not None else [each] * len(node.outputs)
        ends = np.cumsum(sizes)[:-1]
        for output, part in zip(node.outputs, np.split(array, ends, axis), strict=True):
            tensor = ir.tensor(np.ascontiguousarray(part), name=f"{output.name}.part")
            made = ir.Value(
                name=tensor.name, shape=ir.Shape(part.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            if not output.is_graph_output():
                graph.register_initializer(made)
                ir.convenience.replace_all_uses_with(output, made)


def _scope(node: ir.Node) -> str:
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((s for s in reversed(scopes[:-1]) if s and not s.startswith("_empty")), "")


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate
