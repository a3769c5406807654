"""Proof of precision: what the graph's matrix products really read, whatever the graph is called."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.ir.flops import node_flops
from perceiver_exporters.ir.fused_attention import operands
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import Precision
from perceiver_runtime.errors import CheckError

_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)


@dataclass(frozen=True)
class PrecisionProof:
    """Shares of FLOPs in the asked precision: of products with a constant weight, and of all products.

    `promised` is the share among the weighted products that were to be in that precision: all but the kept ones.
    """

    component: str
    precision: str
    weighted: float
    overall: float
    products: int
    promised: float


def prove(sized: SizedGraph, precision: Precision, kept: Set[str] = frozenset()) -> PrecisionProof:
    """Measure the shares in a rewritten graph, where the nodes `kept` were left in FP32 on purpose.

    Raises CheckError if too few of the promised FLOPs are in that precision.
    """
    nodes = list(products(sized.opt))
    weighted = [node for node in nodes if has_constant_weight(node)]
    holds = _HOLDS[precision.name]
    proof = PrecisionProof(
        component=sized.name,
        precision=precision.name,
        weighted=_share(weighted, holds),
        overall=_share(nodes, holds),
        products=len(nodes),
        promised=_share([node for node in weighted if node.name not in kept], holds),
    )
    if proof.promised < precision.share:
        raise CheckError(
            f"component {proof.component}: expected {precision.share:.0%} of the weighted matrix FLOPs in "
            f"{precision.name}, found {proof.promised:.1%}; the graph is not what its label says"
        )
    return proof


def held(model: ir.Model, precision: str) -> int:
    """How many matrix products of a stored graph read operands in this precision: so many must be in its engine."""
    common.ShapeInferencePass()(model)  # a stored graph does not say what types its nodes have
    return sum(map(_HOLDS[precision], products(model.graph)))


def _share(nodes: list[ir.Node], holds: Callable[[ir.Node], bool]) -> float:
    total = sum(node_flops(node) for node in nodes)
    return sum(node_flops(node) for node in nodes if holds(node)) / total if total else 1.0


def _reads(dtype: ir.DataType) -> Callable[[ir.Node], bool]:
    return lambda node: all(value is not None and value.dtype == dtype for value in operands(node))


def _reads_integers(node: ir.Node) -> bool:
    """Both operands come out of a DequantizeLinear that reads 8-bit integers."""
    return all(_is_dequantized(value) for value in node.inputs[:2])


def _reads_ranged(node: ir.Node) -> bool:
    """The same, and the range of the first is taken at run time."""
    if not _reads_integers(node):
        return False
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    quantiser = source.inputs[0].producer() if source is not None and source.inputs[0] is not None else None
    return quantiser is not None and quantiser.op_type == "DynamicQuantizeLinear"


def _reads_stored(dtype: ir.DataType, operands: int) -> Callable[[ir.Node], bool]:
    """The last `operands` operands come out of a DequantizeLinear that reads this type."""

    def holds(node: ir.Node) -> bool:
        sources = [value.producer() if value is not None else None for value in node.inputs[2 - operands : 2]]
        return all(
            s is not None and s.op_type == "DequantizeLinear" and s.inputs[0] is not None and s.inputs[0].dtype == dtype
            for s in sources
        )

    return holds


def _is_dequantized(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype in _INTEGERS


_HOLDS: dict[str, Callable[[ir.Node], bool]] = {
    "fp32": _reads(ir.DataType.FLOAT),
    "fp16": _reads(ir.DataType.FLOAT16),
    "bf16": _reads(ir.DataType.BFLOAT16),
    "int8": lambda node: _reads_integers(node) and not _reads_ranged(node),
    "int8-dynamic": _reads_ranged,
    "fp8": _reads_stored(ir.DataType.FLOAT8E4M3FN, operands=2),
    "int4": _reads_stored(ir.DataType.INT4, operands=1),
}
