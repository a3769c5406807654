"""Preflight checks of graphs: operators, operator set, types, quantisation."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from perceiver_exporters.preflight.report import Problem
from perceiver_exporters.preflight.subject import Subject
from perceiver_runtime.tensorrt.dialect import Dialect

NO_IMPORTER = frozenset(
    (
        "Bernoulli",
        "CenterCropPad",
        "Col2Im",
        "ConcatFromSequence",
        "ConvInteger",
        "DFT",
        "Det",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "MaxUnpool",
        "MelWeightMatrix",
        "Multinomial",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "QLinearConv",
        "QLinearMatMul",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
        "StringNormalizer",
        "TfIdfVectorizer",
        "Unique",
    )
)
"""ONNX operators that no version's parser imports; a test compares them with the parser of TensorRT-RTX."""

NOT_IN_10_3 = frozenset(("Attention", "BlackmanWindow", "HammingWindow", "HannWindow", "STFT"))
"""Operators whose importer is newer than the TensorRT 10 of JetPack 6."""

TYPES = frozenset(
    (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.INT64,
        ir.DataType.INT32,
        ir.DataType.INT8,
        ir.DataType.INT4,  # weights; parsers without it fail the check of the operator set
        ir.DataType.UINT8,
        ir.DataType.BOOL,
    )
)
_UNSIGNED = (ir.DataType.UINT8, ir.DataType.UINT16)


def operators(subject: Subject) -> Iterator[Problem]:
    """Operators without an importer, contrib operators, and ONNX Attention where it is too new."""
    for component, graph in subject.graphs.items():
        names = {_name(node) for node in graph.graph if not _imports(node, subject.dialect)}
        if names:
            yield "blocked", component, f"{subject.dialect.name} has no importer for {', '.join(sorted(names))}"


def opset(subject: Subject) -> Iterator[Problem]:
    """An operator set newer than the parser."""
    for component, graph in subject.graphs.items():
        version = graph.opset_imports.get("", 0)
        if version > subject.dialect.opset:
            yield "blocked", component, f"opset {version}; {subject.dialect.name} reads up to {subject.dialect.opset}"


def types(subject: Subject) -> Iterator[Problem]:
    """Tensors of types that TensorRT does not have."""
    for component, graph in subject.graphs.items():
        values = [*graph.graph.inputs, *graph.graph.initializers.values(), *(v for n in graph.graph for v in n.outputs)]
        found = {v.dtype for v in values if v.dtype is not None and v.dtype not in TYPES}
        if found:
            yield "blocked", component, f"tensors of type {', '.join(sorted(t.name for t in found))}"


def zero_points(subject: Subject) -> Iterator[Problem]:
    """Quantisation with an unsigned type, or a zero point other than 0."""
    for component, graph in subject.graphs.items():
        wrong = [node for node in _quantisation(graph) if _asymmetric(node)]
        if wrong:
            example = f"{len(wrong)} Q/DQ nodes, {wrong[0].name or wrong[0].op_type} among them"
            yield "blocked", component, f"asymmetric quantisation (UINT8, or a zero point that is not 0) in {example}"


def integer_biases(subject: Subject) -> Iterator[Problem]:
    """DequantizeLinear of INT32: a quantised bias."""
    for component, graph in subject.graphs.items():
        biases = [node for node in _quantisation(graph) if _dtype(node.inputs[0]) == ir.DataType.INT32]
        if biases:
            yield "blocked", component, f"{len(biases)} biases quantised to INT32"


def precision(subject: Subject) -> Iterator[Problem]:
    """Precisions that the target's GPU does not support, by the manifest or by types in the graph."""
    if subject.manifest.precision not in subject.target.precisions:
        yield "blocked", "", _offer(subject, subject.manifest.precision)
    for component, graph in subject.graphs.items():
        eight = any(_dtype(v) == ir.DataType.FLOAT8E4M3FN for n in graph.graph for v in (*n.inputs, *n.outputs))
        if eight and "fp8" not in subject.target.precisions:
            yield "blocked", component, _offer(subject, "fp8")


def _offer(subject: Subject, precision: str) -> str:
    return f"{precision}; {subject.target.name} computes in {', '.join(subject.target.precisions)}"


def _imports(node: ir.Node, dialect: Dialect) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in NO_IMPORTER:
        return False
    return dialect.attention or node.op_type not in NOT_IN_10_3


def _name(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _quantisation(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


def _asymmetric(node: ir.Node) -> bool:
    point = node.inputs[2] if len(node.inputs) > 2 else None
    if point is None:
        return node.op_type == "QuantizeLinear"  # ONNX: without a zero point the result is UINT8
    if _dtype(point) in _UNSIGNED:
        return True
    return point.const_value is not None and bool(point.const_value.numpy().astype("float32").any())


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    if value is None:
        return None
    return value.const_value.dtype if value.const_value is not None else value.dtype
