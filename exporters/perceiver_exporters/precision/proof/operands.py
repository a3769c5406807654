"""Precision proof: the types of the operands that the matrix products of a graph read."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.ir.flops import node_flops
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import Precision
from perceiver_runtime.errors import CheckError


@dataclass(frozen=True)
class PrecisionProof:
    """Shares of FLOPs in the asked precision, of products with a constant weight and of all products.

    `promised` is the share among the weighted products except those kept in FP32.
    """

    weighted: float
    overall: float
    products: int
    promised: float


def prove(sized: SizedGraph, precision: Precision, kept: Set[str] = frozenset()) -> PrecisionProof:
    """Measure the shares in a rewritten graph; the nodes `kept` are in FP32 on purpose.

    Raises:
        CheckError: Too few of the other weighted FLOPs are in the precision.
    """
    nodes = list(products(sized.opt))
    weighted = [node for node in nodes if has_constant_weight(node)]
    proof = PrecisionProof(
        weighted=_share(weighted, precision),
        overall=_share(nodes, precision),
        products=len(nodes),
        promised=_share([node for node in weighted if node.name not in kept], precision),
    )
    if proof.promised < precision.share:
        raise CheckError(
            f"component {sized.name}: expected {precision.share:.0%} of the weighted matrix FLOPs in "
            f"{precision.name}, found {proof.promised:.1%}; the graph is not what its label says"
        )
    return proof


def count_products(model: ir.Model, precision: Precision) -> int:
    """Number of matrix products in this precision in a stored graph: its engine must have as many."""
    common.ShapeInferencePass()(model)  # a stored graph does not say what types its nodes have
    return sum(map(precision.prove, products(model.graph)))


def _share(nodes: list[ir.Node], precision: Precision) -> float:
    total = sum(node_flops(node) for node in nodes)
    return sum(node_flops(node) for node in nodes if precision.prove(node)) / total if total else 1.0
