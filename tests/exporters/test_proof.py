from __future__ import annotations

import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.proof.operands import PrecisionProof, prove
from perceiver_runtime.errors import CheckError

from .test_precision import rewrite


def proof(blueprint: Blueprint, graph: ir.Model, label: str) -> PrecisionProof:
    component = blueprint.cut.component(str(graph.graph.name))
    return prove(SizedGraph(graph, component.inputs, blueprint.cut.profile), PRECISIONS[label])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_rewritten_graph_proves_its_precision(
    blueprint: Blueprint, graphs: dict[str, ir.Model], precision: str
) -> None:
    for graph in graphs.values():
        assert proof(blueprint, rewrite(blueprint, graph, precision), precision).weighted == 1.0


def test_int8_leaves_products_of_activations_in_floating_point(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    held = proof(blueprint, rewrite(blueprint, graphs["processor_block"], "int8"), "int8")
    weighted, activations = 6 * 16 * 64 * 64, 2 * 16 * 16 * 64
    assert held.overall == pytest.approx(weighted / (weighted + activations))
    assert held.products == 16


@pytest.mark.parametrize("label", ["fp16", "int8"])
def test_a_graph_that_is_not_what_it_is_called_fails(
    blueprint: Blueprint, graphs: dict[str, ir.Model], label: str
) -> None:
    with pytest.raises(CheckError, match=rf"expected (99|100)% .* in {label}, found 0\.0%"):
        proof(blueprint, graphs["encoder"], label)


def test_one_product_left_in_floating_point_fails(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    quantized = rewrite(blueprint, graphs["processor_block"], "int8")
    node = next(n for n in quantized.graph if n.name == "1.mlp.2/MatMul")
    dequantize = node.inputs[0].producer() if node.inputs[0] else None
    assert dequantize is not None
    quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] else None
    assert quantize is not None
    node.replace_input_with(0, quantize.inputs[0])
    with pytest.raises(CheckError, match=r"processor_block: expected 99% .* found 91\.7%"):
        proof(blueprint, quantized, "int8")
