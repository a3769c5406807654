from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules import Context, rewrite
from perceiver_exporters.rules.constants.constant_product import CONSTANT_PRODUCT
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import EXACT, session

X = TensorSpec("x", "float32", ("batch", 6, 5))
PROFILE = Profile("default", {"batch": Range(1, 1, 8)})


def graph(kind: str, **attributes: float) -> ir.Model:
    """x plus a learned table (6, 4) through a projection of its own, to 5."""
    random = np.random.default_rng(0)
    shapes = {"table": (4, 6) if attributes.get("transA") else (6, 4), "weight": (4, 5), "bias": (5,)}
    if attributes.get("transB"):
        shapes["weight"] = (5, 4)
    weights = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    inputs = ["table", "weight"] + ["bias"] * (kind == "Gemm")
    nodes = [
        helper.make_node(kind, inputs, ["projected"], name="positions/product", **attributes),  # type: ignore[arg-type]
        helper.make_node("Add", ["x", "projected"], ["y"], name="sum"),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("batch", 6, 5)) for n in ("x", "y")]
    made = helper.make_graph(nodes, "net", infos[:1], infos[1:], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("MatMul", {}),
        ("Gemm", {}),
        ("Gemm", {"transB": 1}),
        ("Gemm", {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ],
)
def test_a_product_of_two_constants_becomes_one(kind, attributes):
    before, after = graph(kind, **attributes), graph(kind, **attributes)
    (outcome,) = rewrite(SizedGraph(after, (X,), PROFILE), Context(TARGETS["rtx"], "int8"), (CONSTANT_PRODUCT,))
    assert outcome.detail == "positions/product"
    assert outcome.after.constants < outcome.before.constants
    assert [node.op_type for node in after.graph] == ["Add"]
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 6, 5)).astype(np.float32)}
    (expected,), (got,) = session(before).run(None, feeds), session(after).run(None, feeds)
    assert np.linalg.norm(got - expected) < EXACT * np.linalg.norm(expected)


def test_declines_where_an_operand_is_an_activation(subject):
    given = subject("fourier", "processor_block")
    rewritten, (outcome,) = given.rewritten(CONSTANT_PRODUCT, target="rtx")
    assert not outcome.applied
    assert outcome.detail == "no product of two constants"
    assert given.distance(rewritten) == 0
