"""Clean-up and naming of traced graphs, and queries on their values and products."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from perceiver_exporters.ir.fused_attention import is_fused

_SCOPES = "pkg.torch.onnx.name_scopes"
_PASSES = (
    common.CommonSubexpressionEliminationPass(),
    common.DeduplicateInitializersPass(size_limit=sys.maxsize),
    common.RemoveUnusedNodesPass(),
    common.ClearMetadataAndDocStringPass(),
)


def clean(model: ir.Model) -> ir.Model:
    """Fold constants, merge equal nodes and initializers, remove unused nodes and metadata of the exporting machine.

    A weight shared by several layers is transposed for each of them. These Transposes are folded whatever their size,
    because quantisers recognise constant weights only.
    """
    common.CommonSubexpressionEliminationPass()(model)
    optimizer.fold_constants(model, output_size_limit=sys.maxsize, should_fold=_folds)
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
    return (n for n in graph if (n.op_type in ("MatMul", "Gemm", "Conv") and n.domain == "") or is_fused(n))


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
    return True if node.op_type == "Transpose" and constant_of(node.inputs[0]) is not None else None


def _scope(node: ir.Node) -> str:
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((s for s in reversed(scopes[:-1]) if s and not s.startswith("_empty")), "")


def _unique(name: str, taken: set[str]) -> str:
    candidate, n = name, 1
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate
