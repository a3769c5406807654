"""Forms of a graph that OpenVINO's CPU plugin computes faster. Only the last changes values: it rounds an output.

| Form | Why |
|---|---|
| The product of queries and keys transposes the keys | fused attention reads them where they are |
| Queries of integer attention are rounded and scaled back by one operator | it takes signed integers for them |
| A quantizer is above the reshapes and transposes of its input | it fuses with the product that precedes them |
| An output that ends a residual stream is bfloat16, in bfloat16 | the plugin keeps sums that reach float32 in float32 |
"""

from __future__ import annotations

from typing import Any

import numpy as np

import openvino
from openvino import opset8 as op

LAYOUT = ("Reshape", "Transpose")
DEQUANTIZE = ("Convert", "Subtract", "Multiply")
ATTENTION_RANK = 4
KEYS_ORDER = [0, 2, 3, 1]
"""The transpose of (B, K, H, D) to (B, H, D, K)."""


def improve(model: Any, precision: Any) -> None:
    """Give a model these forms, in place; outputs keep their names."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            _merge_dequantizer(node)
            _raise_quantizer(node)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            _transpose_keys(node)
    if precision == openvino.Type.bf16:
        for result in model.get_results():
            _narrow(result)
    model.validate_nodes_and_infer_types()


def _merge_dequantizer(quantizer: Any) -> None:
    """Let a quantizer whose result is the left operand of attention give the dequantised values itself."""
    end = _dequantized(quantizer)
    if end is None or not any(_is_attention(reader) for reader in end.get_target_inputs()):
        return
    before = end.get_node().input_value(0).get_node()
    zero = _constant(before.input_value(1)) if before.get_type_name() == "Subtract" else 0.0
    scale = _constant(end.get_node().input_value(1))
    *inputs, low, high = quantizer.input_values()
    outputs = [op.constant(np.float32((_constant(value) - zero) * scale)) for value in (low, high)]
    made = op.fake_quantize(*inputs, *outputs, quantizer.get_attributes()["levels"])
    _replace(end, made.output(0))


def _is_attention(reader: Any) -> bool:
    """Whether an input is the left one of a product with a right one of four axes, which no weight has."""
    product = reader.get_node()
    if product.get_type_name() != "MatMul" or reader.get_index() != 0:
        return False
    rank = product.input_value(1).get_partial_shape().rank
    return bool(rank.is_static and rank.get_length() == ATTENTION_RANK)


def _constant(value: Any) -> float:
    """The only element of a constant, which may be cast."""
    source = value.get_node()
    while source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    return float(source.get_data().reshape(-1)[0])


def _raise_quantizer(quantizer: Any) -> None:
    """Move the layout operators between a product and a quantizer of one range behind the dequantisation."""
    source, moved = quantizer.input_value(0), []
    while source.get_node().get_type_name() in LAYOUT and len(source.get_target_inputs()) == 1:
        moved.append(source.get_node())
        source = source.get_node().input_value(0)
    end = _dequantized(quantizer)
    if not moved or end is None or not _is_scalar(quantizer):
        return
    readers = end.get_target_inputs()
    quantizer.input(0).replace_source_output(source)
    moved[-1].input(0).replace_source_output(end)
    for reader in readers:
        reader.replace_source_output(moved[0].output(0))


def _dequantized(quantizer: Any) -> Any | None:
    """The result of the only chain behind a quantizer that ends with its multiplication by the scale."""
    end, last = quantizer.output(0), quantizer
    while last.get_type_name() != "Multiply":
        readers = list(end.get_target_inputs())
        if len(readers) != 1 or readers[0].get_index() != 0:
            return None
        last = readers[0].get_node()
        if last.get_type_name() not in DEQUANTIZE or not _is_scalar(last):
            return None
        end = last.output(0)
    return end


def _is_scalar(node: Any) -> bool:
    """Whether all inputs but the first have one element, so that the layout of the first does not matter."""
    shapes = [value.get_partial_shape() for value in node.input_values()[1:]]
    return all(shape.is_static and all(d.get_length() == 1 for d in shape) for shape in shapes)


def _transpose_keys(product: Any) -> None:
    """Let a product transpose its right operand (B, H, K, D)."""
    transpose = product.input_value(1).get_node()
    if transpose.get_type_name() != "Transpose" or len(transpose.output(0).get_target_inputs()) != 1:
        return
    order = transpose.input_value(1).get_node()
    if order.get_type_name() != "Constant" or order.get_data().tolist() != KEYS_ORDER:
        return
    flags = product.get_attributes()
    if flags["transpose_a"] or flags["transpose_b"]:
        return
    keys = op.transpose(transpose.input_value(0), op.constant(np.array([0, 2, 1, 3])))
    made = op.matmul(product.input_value(0), keys, False, True)
    made.set_friendly_name(product.get_friendly_name())
    _replace(product.output(0), made.output(0))


def _narrow(result: Any) -> None:
    """Let a result that is the sum of two computed values leave in bfloat16."""
    source = result.input_value(0)
    node = source.get_node()
    operands = [value.get_node().get_type_name() for value in node.input_values()]
    if node.get_type_name() != "Add" or "Constant" in operands or source.get_element_type() != openvino.Type.f32:
        return
    narrow = op.convert(source, "bf16").output(0)
    narrow.set_names(source.get_names())
    source.set_names(set())
    result.input(0).replace_source_output(narrow)


def _replace(old: Any, new: Any) -> None:
    new.set_names(old.get_names())
    for reader in old.get_target_inputs():
        reader.replace_source_output(new)
