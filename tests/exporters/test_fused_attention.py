"""Shapes behind attention in one operator: what ONNX itself does not know."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from perceiver_exporters.ir.fused_attention import DOMAIN, OPERATOR, VERSION

Shape = Sequence[int | str | None] | None
QUERY, KEY, VALUE = ["batch", 7, 8], ["batch", 9, 8], ["batch", 9, 12]


def inferred(*operands: Shape) -> list[int | str | None] | None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("qkv", operands, strict=True)]
    node = helper.make_node(OPERATOR, list("qkv"), ["y"], domain=DOMAIN, num_heads=2)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(helper.make_graph([node], "g", values, [out]), opset_imports=opsets)
    made = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type
    if not made.HasField("shape"):
        return None
    names = [d.dim_value or d.dim_param for d in made.shape.dim]
    return [None if str(name).startswith("unk__") else name for name in names]


@pytest.mark.parametrize(
    ("operands", "shape"),
    [
        ((QUERY, KEY, VALUE), ["batch", 7, 12]),
        (([None, 7, 8], KEY, VALUE), ["batch", 7, 12]),
        (([None, 7, 8], [None, 9, 8], [3, 9, 12]), [3, 7, 12]),
        (([None, 7, 8], [None, 9, 8], [None, 9, 12]), [None, 7, 12]),
        ((QUERY, KEY, None), None),
        ((None, KEY, VALUE), None),
        (([2, 7, 2, 4], KEY, VALUE), None),
    ],
)
def test_the_batch_is_that_of_whichever_operand_tells_it(operands: tuple[Shape, ...], shape: list[int | None]) -> None:
    assert inferred(*operands) == shape
