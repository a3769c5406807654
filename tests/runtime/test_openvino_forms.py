"""Forms of a graph for OpenVINO: the same values, by the operators that its plugin fuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import Arrays

openvino = pytest.importorskip("openvino")
from perceiver_runtime.backends.openvino import shared_core  # noqa: E402
from perceiver_runtime.backends.openvino_forms import improve  # noqa: E402

from openvino import opset8 as op  # noqa: E402

HEADS, DEPTH = 2, 3


def _attention(scale: Arrays | None = None, queries: Arrays | None = None) -> Any:
    """y = x + attention(x) with the attention's result quantised before its output product, perhaps queries too."""
    rng = np.random.default_rng(0)
    width = HEADS * DEPTH
    constants = {
        "weight": rng.standard_normal((width, width), dtype=np.float32),
        "heads": np.array([0, -1, HEADS, DEPTH]),
        "flat": np.array([0, -1, width]),
        "scale": np.float32(0.02),
        "zero": np.uint8(128),
        **(scale or {}),
        **(queries or {}),
    }
    asked = "rounded_queries" if queries else "q"
    rounding = [
        helper.make_node("QuantizeLinear", ["q", "q_scale", "q_zero"], ["q_integers"]),
        helper.make_node("DequantizeLinear", ["q_integers", "q_scale", "q_zero"], ["rounded_queries"]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["v"]),
        helper.make_node("Reshape", ["x", "heads"], ["q0"]),
        helper.make_node("Transpose", ["q0"], ["q"], perm=[0, 2, 1, 3]),
        *(rounding if queries else []),
        helper.make_node("Reshape", ["v", "heads"], ["k0"]),
        helper.make_node("Transpose", ["k0"], ["k"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["k0"], ["v1"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", [asked, "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "v1"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["mixed1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["mixed1", "flat"], ["mixed2"]),
        helper.make_node("QuantizeLinear", ["mixed2", "scale", "zero"], ["integers"], axis=2),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"], axis=2),
        helper.make_node("MatMul", ["rounded", "weight"], ["added"]),
        helper.make_node("Add", ["x", "added"], ["y"]),
        helper.make_node("Shape", ["y"], ["shape"]),
        helper.make_node("Add", ["shape", "shape"], ["sizes"]),
    ]
    shape: list[str | int] = ["batch", "length", width]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, [3]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return shared_core().read_model(model.SerializeToString())


def _run(model: Any, x: Any) -> list[Any]:
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"x": x})
    return [answer[name] for name in ("y", "sizes")]


def test_values_stay_and_quantizers_and_keys_move() -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, HEADS * DEPTH), dtype=np.float32)
    expected = _run(_attention(), x)
    model = _attention()
    improve(model, openvino.Type.f32)
    for got, wanted in zip(_run(model, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    (quantizer,) = (n for n in model.get_ops() if n.get_type_name() == "FakeQuantize")
    assert quantizer.input_value(0).get_node().get_type_name() == "MatMul"
    assert [n.get_attributes()["transpose_b"] for n in model.get_ops() if n.get_type_name() == "MatMul"].count(
        True
    ) == 1


@pytest.mark.parametrize("zero", [np.uint8(128), np.uint8(100), np.int8(0)])
def test_queries_are_rounded_by_one_operator(zero: Any) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, HEADS * DEPTH), dtype=np.float32)
    queries = {"q_scale": np.float32(0.03), "q_zero": zero}
    expected = _run(_attention(queries=queries), x)
    model = _attention(queries=queries)
    improve(model, openvino.Type.f32)
    np.testing.assert_allclose(_run(model, x)[0], expected[0], rtol=1e-5, atol=2e-2)  # one step of the last quantizer
    assert [n.get_type_name() for n in model.get_ops()].count("Subtract") <= 1


def test_a_range_per_channel_stays_where_its_channels_are() -> None:
    width = HEADS * DEPTH
    model = _attention({"scale": np.full(width, 0.02, np.float32), "zero": np.full(width, 128, np.uint8)})
    improve(model, openvino.Type.f32)
    quantizers = [n for n in model.get_ops() if n.get_type_name() == "FakeQuantize"]
    assert [n.input_value(0).get_node().get_type_name() for n in quantizers] == ["Reshape"]


def test_only_a_residual_stream_leaves_in_bfloat16() -> None:
    model = _attention()
    improve(model, openvino.Type.bf16)
    assert {p.any_name: p.element_type.get_type_name() for p in model.outputs} == {"y": "bf16", "sizes": "i64"}
    plain = _attention()
    improve(plain, openvino.Type.f32)
    assert [p.element_type.get_type_name() for p in plain.outputs] == ["f32", "i64"]


def _quantized(constant: Any) -> tuple[Any, Any]:
    """An input of four axes after a quantizer, and after its dequantisation."""
    x = op.parameter([1, HEADS, 5, DEPTH], np.float32, "x")
    low, high = op.constant(np.float32(-2)), op.constant(np.float32(2))
    first, last = op.constant(np.float32(0)), op.constant(np.float32(255))
    integers = op.fake_quantize(x, low, high, first, last, 256)
    return integers, op.multiply(integers, constant)


def _types(model: Any) -> list[str]:
    return sorted(node.get_type_name() for node in model.get_ops())


@pytest.mark.parametrize("case", ["added", "right operand", "integers are read too"])
def test_dequantised_values_that_attention_does_not_multiply_stay(case: str) -> None:
    integers, values = _quantized(op.constant(np.float32(0.02)))
    other = op.constant(np.ones((1, HEADS, 5, 5), np.float32))
    results = {
        "added": [op.add(values, op.constant(np.float32(1)))],
        "right operand": [op.matmul(other, values, False, False)],
        "integers are read too": [op.matmul(values, op.transpose(values, [0, 1, 3, 2]), False, False), integers],
    }[case]
    model = openvino.Model(results, [integers.input_value(0).get_node()], "quantized")
    before = _types(model)
    improve(model, openvino.Type.f32)
    assert _types(model) == before


def test_a_product_that_transposes_already_stays() -> None:
    queries = op.parameter([1, HEADS, 7, 5], np.float32, "q")
    keys = op.parameter([1, 5, HEADS, DEPTH], np.float32, "k")
    turned = op.transpose(keys, op.constant(np.array([0, 2, 3, 1])))
    model = openvino.Model([op.matmul(queries, turned, False, True)], [queries, keys], "product")
    improve(model, openvino.Type.f32)
    (product,) = (node for node in model.get_ops() if node.get_type_name() == "MatMul")
    assert product.input_value(1).get_node().input_value(1).get_node().get_data().tolist() == [0, 2, 3, 1]
    assert list(product.get_output_shape(0)) == [1, HEADS, 7, DEPTH]
