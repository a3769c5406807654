from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.precision import PRECISIONS, Request
from perceiver_exporters.precision.calibration.observe import observe
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import CheckError

from .conftest import CONFIG, FAMILY

import onnxruntime as ort

WEIGHTED = {"encoder": 7, "processor_block": 12, "decoder": 7}
"""Products with a constant weight: four of attention and two of the MLP per layer, patches, class head."""
FOLDED = {"decoder": 1}
"""The learned query's projection depends on no input: ONNX Runtime computes it once, when it loads the graph."""


def rewrite(blueprint: Blueprint, graph: ir.Model, precision: str, scheme: str = "cpu") -> ir.Model:
    name = str(graph.graph.name)
    reference = Reference(blueprint.cut)

    def calibration():
        feeds = FAMILY.sample(CONFIG, 16, np.random.default_rng(5))
        return (a.inputs for a in reference.calls(feeds) if a.component == name)

    plan = ComponentPlan(observe(graph, calibration())) if PRECISIONS[precision].planned else None
    return PRECISIONS[precision].rewrite(graph, Request(name, SCHEMES[scheme], calibration, plan=plan))


def size(graph: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value is not None)


def test_fp16_products_read_half_and_normalisation_reads_single(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    for name, graph in graphs.items():
        half = rewrite(blueprint, graph, "fp16").graph
        for node in half:
            types = {v.dtype for v in node.inputs if v is not None} - {ir.DataType.INT64}
            if node.op_type in ("MatMul", "Gemm", "Conv", "Gelu"):
                assert types == {ir.DataType.FLOAT16}, node.name
            if node.op_type in ("LayerNormalization", "Softmax"):
                assert types == {ir.DataType.FLOAT}, node.name
        assert {v.dtype for v in (*half.inputs, *half.outputs)} == {ir.DataType.FLOAT}, name
        assert not [n for n in half if n.op_type == "Cast" and n.inputs[0].producer() and _is_cast(n)], name


def _is_cast(node: ir.Node) -> bool:
    """A cast of a cast: a round trip that the rewrite should have seen."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return producer is not None and producer.op_type == "Cast"


def test_fp16_halves_the_weights(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    for graph in graphs.values():
        before = size(graph)
        assert size(rewrite(blueprint, graph, "fp16")) < 0.53 * before


def test_fp16_refuses_a_weight_out_of_range(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    graph = graphs["decoder"]
    weight = next(products(graph.graph)).inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    huge = weight.const_value.numpy().copy()
    huge[0, 0] = 70_000
    weight.const_value = ir.tensor(huge, name=weight.name)
    with pytest.raises(CheckError, match="leaves FP16's range"):
        rewrite(blueprint, graph, "fp16")


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_int8_quantises_weighted_products_and_no_other(
    blueprint: Blueprint, graphs: dict[str, ir.Model], scheme: str
) -> None:
    for name, graph in graphs.items():
        quantized = rewrite(blueprint, graph, "int8", scheme).graph
        weighted = [node for node in products(quantized) if has_constant_weight(node)]
        assert len(weighted) == WEIGHTED[name]
        for node in products(quantized):
            sources = [v.producer().op_type if v.producer() else None for v in node.inputs[:2]]
            assert (sources == ["DequantizeLinear"] * 2) == (node in weighted), node.name


def test_int8_shares_a_quantiser_between_the_readers_of_a_tensor(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    quantized = rewrite(blueprint, graphs["processor_block"], "int8").graph
    names = Counter(str(n.inputs[0].name) for n in quantized if n.op_type == "QuantizeLinear")
    assert set(names.values()) == {1}
    assert len(names) == 2 * 4  # per layer: input of Q, K and V; of the output; of each MLP layer


def test_int8_for_tensorrt_is_symmetric_and_leaves_biases_alone(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    for graph in graphs.values():
        quantized = rewrite(blueprint, graph, "int8", "tensorrt").graph
        for node in quantized:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = node.inputs[2]
                assert zero is not None
                assert zero.const_value is not None
                assert zero.dtype == ir.DataType.INT8
                assert not zero.const_value.numpy().any()


def test_int8_runs_on_integer_kernels(blueprint: Blueprint, graphs: dict[str, ir.Model], tmp_path: Path) -> None:
    """What ONNX Runtime makes of the graph: no weighted product is left in floating point."""
    integer = {"MatMulIntegerToFloat", "QLinearConv", "QGemm"}
    for name, graph in graphs.items():
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(ir.to_proto(rewrite(blueprint, graph, "int8")).SerializeToString(), options)
        nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
        assert sum(node.op_type in integer for node in nodes) == WEIGHTED[name] - FOLDED.get(name, 0)


def test_int8_quarters_the_weights(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    graph = graphs["processor_block"]
    before = size(graph)
    assert size(rewrite(blueprint, graph, "int8")) < 0.32 * before


def test_quantising_is_silent(
    blueprint: Blueprint, graphs: dict[str, ir.Model], capfd: pytest.CaptureFixture[str]
) -> None:
    rewrite(blueprint, graphs["decoder"], "int8")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_int8_is_refused_without_a_plan(graphs: dict[str, ir.Model]) -> None:
    with pytest.raises(CheckError, match="component decoder: expected a quantization plan, got none"):
        PRECISIONS["int8"].rewrite(graphs["decoder"], Request("decoder", SCHEMES["cpu"], lambda: iter(())))
